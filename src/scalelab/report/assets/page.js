"use strict";
(() => {
  const root = document.documentElement;
  const page = JSON.parse(document.getElementById("data").textContent);
  const paper = window.matchMedia("print");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const current = new Map();
  let printing = false;

  // Figures name colours as CSS variables; the browser resolves them in the theme it shows now.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const resolve = (value) => {
    if (typeof value === "string" && value.startsWith("var(--")) {
      probe.style.color = value;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map(resolve);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v)]));
    return value;
  };

  const axis = (own) => ({
    gridcolor: "var(--grid)", linecolor: "var(--rule)", zerolinecolor: "var(--rule)", tickcolor: "var(--rule)",
    tickfont: { color: "var(--ink-2)", size: 12 }, automargin: true, ticklabeloverflow: "allow", ...own,
    title: { ...(own && own.title), font: { size: 12.5, color: "var(--ink-2)" }, standoff: 10 },
  });

  const layoutOf = (layout, width) => resolve({
    ...layout,
    ...(printing ? { width: 660, autosize: false } : { width, autosize: false }),
    margin: { l: 10, r: 14, t: layout.showlegend ? 42 : 10, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: "var(--ink)", size: 13 },
    hoverlabel: { bgcolor: "var(--panel)", bordercolor: "var(--rule)", font: { color: "var(--ink)", size: 13 }, namelength: 40 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal", font: { size: 12.5 }, itemwidth: 30 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--ink-2)", activecolor: "var(--accent)" },
    dragmode: touch ? false : "zoom",
    ...Object.fromEntries(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis\d+$/.test(name))].map((name) => [name, axis(layout[name])])),
  });

  const draw = (chart) => {
    const box = document.getElementById("chart-" + chart.id);
    const view = chart.views[current.get(chart.id) || 0];
    const config = {
      displaylogo: false, showTips: false, modeBarButtons: [["toImage", "resetScale2d"]],
      displayModeBar: touch ? false : "hover", toImageButtonOptions: { filename: "scalelab-" + chart.id, scale: 2 },
    };
    return window.Plotly.react(box, resolve(view.data || chart.views[0].data), layoutOf(view.layout, box.clientWidth), config);
  };
  const drawAll = () => page.charts.forEach(draw);

  for (const button of document.querySelectorAll(".switch button")) {
    button.addEventListener("click", () => {
      current.set(button.dataset.chart, Number(button.dataset.view));
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      draw(page.charts.find((chart) => chart.id === button.dataset.chart));
    });
  }

  // A browser may refuse storage to a local file: the choice then lasts as long as the page.
  const remembered = (theme) => {
    try {
      if (theme) window.localStorage.setItem("scalelab-theme", theme);
      return window.localStorage.getItem("scalelab-theme");
    } catch { return null; }
  };
  const chosen = remembered();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    remembered(root.dataset.theme);
    drawAll();
  });
  dark.addEventListener("change", drawAll);

  const closed = [];
  const print = (on) => {
    if (on === printing) return;
    printing = on;
    if (on) for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; closed.push(one); }
    else while (closed.length) closed.pop().open = false;
    drawAll();
  };
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
  paper.addEventListener("change", () => print(paper.matches));

  let width = 0;
  new ResizeObserver(() => {
    if (printing || document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    window.requestAnimationFrame(drawAll);
  }).observe(document.body);

  const element = (tag, text, attributes) => {
    const made = document.createElement(tag);
    if (text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  };

  const confusion = (one) => {
    const table = element("table", null);
    table.style.setProperty("--classes", one.classes.length);
    table.append(element("caption", "Rows: true class. Columns: predicted class. Run: " + one.label, { class: "hidden" }));
    const head = element("tr", null);
    head.append(element("th", "true", { scope: "col" }));
    one.classes.forEach((name) => head.append(element("th", name, { scope: "col", title: "predicted " + name })));
    const thead = element("thead", null);
    thead.append(head);
    const body = element("tbody", null);
    one.counts.forEach((counts, place) => {
      const total = counts.reduce((a, b) => a + b, 0) || 1;
      const row = element("tr", null);
      row.append(element("th", one.classes[place], { scope: "row", title: "true " + one.classes[place] }));
      counts.forEach((count, other) => {
        const share = count / total;
        const cell = element("td", String(count), { title: `${one.classes[place]} taken for ${one.classes[other]}: ${count} of ${total}` });
        // The square root shows the few mistakes beside a full diagonal.
        cell.style.setProperty("--v", Math.sqrt(share).toFixed(3));
        if (count === 0) cell.className = "zero";
        if (Math.sqrt(share) > 0.62) cell.className = "strong";
        row.append(cell);
      });
      body.append(row);
    });
    table.append(thead, body);
    document.getElementById("confusion").replaceChildren(table);
  };
  if (page.confusions.length) {
    confusion(page.confusions[0]);
    const pick = document.getElementById("confusion-run");
    if (pick) pick.addEventListener("change", () => confusion(page.confusions[Number(pick.value)]));
  }

  for (const table of document.querySelectorAll(".compare")) {
    table.querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => {
      const head = button.closest("th");
      const order = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => row.children[head.cellIndex].dataset.sort;
      const body = table.tBodies[0];
      // Absent figures stay last, whichever way the rest is sorted.
      const sorted = [...body.rows].sort((a, b) => {
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const apart = Number(key(a)) - Number(key(b));
        return (Number.isNaN(apart) ? key(a).localeCompare(key(b)) : apart) * (order === "ascending" ? 1 : -1);
      });
      body.append(...sorted);
    }));
  }
})();
