// Draw the page's plotly figures from the JSON beside them, in the page's own colours.
(() => {
  const narrow = matchMedia("(max-width: 600px)");
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  function colour(name) { // as this theme resolves it
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  // What the page decides about a figure: no paper of its own, text and grid that can be read.
  function pageLayout(layout, plainArrows) {
    const ink = colour("--ink"), grid = colour("--grid"), line = colour("--line");
    const change = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": ink,
      "font.family": getComputedStyle(document.body).fontFamily,
      "legend.bgcolor": "rgba(0,0,0,0)", "hoverlabel.bgcolor": colour("--panel"),
      "hoverlabel.font.color": ink, "hoverlabel.bordercolor": line,
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"), "modebar.activecolor": ink,
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(change, {
        [`${axis}.gridcolor`]: grid, [`${axis}.zerolinecolor`]: line, [`${axis}.linecolor`]: line,
        [`${axis}.tickcolor`]: line,
      });
    }
    for (const index of plainArrows) change[`annotations[${index}].arrowcolor`] = colour("--soft");
    if (narrow.matches) {
      Object.assign(change, {
        "legend.orientation": "h", "legend.x": 0, "legend.xanchor": "left",
        "legend.yref": "container", "legend.y": 0, "legend.yanchor": "bottom",
        "font.size": 11, "title.font.size": 13, "margin.l": 44, "margin.r": 12,
      });
    }
    return change;
  }

  // A phone's width: break the title over lines, and make room below for a legend of many rows.
  function fitNarrow(figure, layout) {
    const title = typeof layout.title === "string" ? { text: layout.title } : layout.title;
    if (title && title.text) {
      const lines = [""];
      for (const word of title.text.split(" ")) {
        if ((lines.at(-1) + word).length > 42 && lines.at(-1)) lines.push("");
        lines[lines.length - 1] += `${word} `;
      }
      layout.title = { ...title, text: lines.map((line) => line.trim()).join("<br>"), x: 0, xref: "container", pad: { l: 8 } };
      layout.margin.t = (layout.margin.t ?? 48) + 16 * (lines.length - 1);
      layout.height = (layout.height ?? 340) + 16 * (lines.length - 1);
    }
    const entries = figure.data.filter((trace) => trace.showlegend !== false && trace.name).length;
    if (entries > 1) {
      const room = 20 * Math.ceil(entries / 2) + 16;
      layout.margin.b = (layout.margin.b ?? 46) + room;
      layout.height = (layout.height ?? 340) + room;
    }
  }

  async function draw(element) {
    if (!window.Plotly) {
      element.classList.add("missing");
      element.textContent = "This figure needs assets/plotly.min.js beside the reports.";
      return;
    }
    const figure = JSON.parse(element.querySelector("script").textContent);
    const layout = figure.layout || {};
    layout.autosize = true;
    delete layout.width; // the column decides
    // Plotly's own margins are made for a screen of their own.
    layout.margin ??= layout.template?.layout?.margin ?? { l: 60, r: 24, t: layout.title ? 64 : 24, b: 56 };
    layout.margin = { ...layout.margin };
    if (narrow.matches) fitNarrow(figure, layout);
    const plainArrows = (layout.annotations || []).flatMap((a, i) => (a.arrowcolor ? [] : [i]));
    const plot = document.createElement("div");
    plot.className = "plot";
    element.append(plot);
    const config = {
      ...figure.config, responsive: false, // `makeResizable` follows the page
      displaylogo: false,
      displayModeBar: narrow.matches ? false : "hover", showLink: false, plotlyServerURL: "",
    };
    await Plotly.newPlot(plot, figure.data, layout, config);
    if (figure.frames && figure.frames.length) await Plotly.addFrames(plot, figure.frames);
    const recolour = () => Plotly.relayout(plot, pageLayout(plot._fullLayout, plainArrows));
    addEventListener("themechange", recolour);
    await recolour();
    makeResizable(element, plot);
    hideFromReaders(plot);
  }

  // By its lower right corner, or by a button that gives the figure the whole window.
  function makeResizable(element, plot) {
    element.style.height = `${plot._fullLayout.height}px`;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.textContent = "Enlarge";
    element.after(button);
    const setLarge = (isLarge) => {
      element.classList.toggle("large", isLarge);
      button.classList.toggle("large", isLarge);
      button.textContent = isLarge ? "Close" : "Enlarge";
    };
    button.addEventListener("click", () => setLarge(!element.classList.contains("large")));
    addEventListener("keydown", (event) => { if (event.key === "Escape") setLarge(false); });
    const { height: givenHeight, legend } = plot._fullLayout;
    const gap = legend?.y < 0 ? legend.y * plot._fullLayout._size.h : 0; // to a legend below the axes, in pixels
    async function resize(width, height) {
      const now = plot._fullLayout;
      if (Math.abs(width - now.width) <= 1 && Math.abs(height - now.height) <= 1) return;
      await Plotly.relayout(plot, { width, height });
      for (let round = 0; gap && round < 2; round++) { // the legend's place is a share of what it leaves to the axes
        await Plotly.relayout(plot, { "legend.y": Math.max(-2, gap / plot._fullLayout._size.h) });
      }
    }
    const fit = () => {
      const { paddingLeft, paddingTop } = getComputedStyle(element);
      const width = element.clientWidth - 2 * parseFloat(paddingLeft), height = element.clientHeight - 2 * parseFloat(paddingTop);
      if (width > 80 && height > 80) resize(width, height);
    };
    new ResizeObserver(fit).observe(element);
    const paperWidth = 680; // A4 without its margins
    addEventListener("beforeprint", () => resize(paperWidth, givenHeight));
    addEventListener("afterprint", fit);
  }

  // The element has a description in words; every tick read out one by one is none.
  function hideFromReaders(plot) {
    for (const drawing of plot.querySelectorAll(".svg-container > svg, .gl-container")) drawing.setAttribute("aria-hidden", "true");
  }

  (async () => {
    for (const element of document.querySelectorAll(".figure")) {
      await draw(element);
      await new Promise((resume) => setTimeout(resume)); // let the page scroll meanwhile
    }
    document.documentElement.dataset.figures = "drawn";
  })();
})();
