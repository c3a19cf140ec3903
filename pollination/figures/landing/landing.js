"use strict";
(() => {
  const dialog = document.querySelector("dialog");
  const sheet = dialog.querySelector(".sheet");
  const large = sheet.querySelector("img");
  let scale = 1;
  const size = (to) => {
    scale = Math.min(8, Math.max(1, to));
    large.style.width = `${100 * scale}%`;
  };
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-enlarge]");
    if (!opener) return;
    const image = document.getElementById(opener.dataset.enlarge);
    large.src = image.src;
    large.alt = image.alt;
    dialog.querySelector("b").textContent = opener.dataset.title;
    size(720 / window.innerWidth);
    dialog.showModal();
    sheet.focus();
  });
  const steps = { in: () => size(scale * 1.5), out: () => size(scale / 1.5), fit: () => size(1) };
  for (const button of dialog.querySelectorAll("[data-step]"))
    button.addEventListener("click", steps[button.dataset.step]);
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  large.addEventListener("click", () => size(scale < 2 ? 2 : 1));
  dialog.addEventListener("keydown", (event) => {
    const step = { "+": "in", "=": "in", "-": "out", 0: "fit" }[event.key];
    if (step) steps[step]();
  });

  const packed = document.getElementById("plotly");
  if (!packed) return;
  const coarse = matchMedia("(pointer: coarse)").matches;
  const sans = getComputedStyle(document.documentElement).getPropertyValue("--sans");
  const lines = { gridcolor: "#ecebe6", zeroline: false, linecolor: "#8c8b85", showline: true };
  const base = {
    font: { family: sans, size: 12, color: "#1d1d1b" },
    margin: { l: 8, r: 10, t: coarse ? 30 : 8, b: 8 },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: "#fff", bordercolor: "#8c8b85", font: { family: sans, size: 12.5, color: "#1d1d1b" } },
    dragmode: coarse ? false : "zoom",
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
  };
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: coarse ? true : "hover",
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  const note = {
    xref: "paper", x: 0, xanchor: "left", yanchor: "bottom", showarrow: false,
    align: "left", font: { size: 12 }, bgcolor: "#ffffffd9", borderpad: 1,
  };
  const layout = ({ xaxis, yaxis, annotations = [], ...more }) => ({
    ...base,
    ...more,
    xaxis: { automargin: true, ...lines, ...xaxis },
    yaxis: { automargin: true, ...lines, ...yaxis },
    annotations: annotations.map((one) => ({ ...note, ...one })),
  });
  const unpack = async () => {
    const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };
  const draw = async () => {
    await unpack();
    const charts = JSON.parse(document.getElementById("charts").textContent);
    for (const [stem, panels] of Object.entries(charts)) {
      const place = document.querySelector(`[data-charts="${stem}"]`);
      place.hidden = false;
      const nodes = place.querySelectorAll(".chart");
      for (const [index, panel] of panels.entries())
        await Plotly.newPlot(nodes[index], panel.data, layout(panel.layout), config);
      document.querySelector(`[data-picture="${stem}"]`).hidden = true;
    }
    document.documentElement.dataset.drawn = "yes";
  };
  draw().catch(() => {
    // Without the charts, the pictures stay.
    for (const place of document.querySelectorAll("[data-charts]")) place.hidden = true;
    for (const picture of document.querySelectorAll("[data-picture]")) picture.hidden = false;
    document.documentElement.dataset.drawn = "no";
  });
})();
