"""Interactive views for JupyterLab, made of core ipywidgets; each has a static form for reports."""
