"""Interactive views for JupyterLab, of ipywidgets and plotly; each has a static form for reports."""
