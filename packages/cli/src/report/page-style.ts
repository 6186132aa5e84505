/** How the report looks: one column on a phone, two on a desk, light or dark as the reader has it. */
export const pageStyle = `
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2127; --soft: #6b7280; --faint: #b3c3df; --grid: #ececea; --edge: #e4e2dd;
  --c1: #2f6fde; --c2: #d9622b; --c3: #2a9d74; --c4: #b0489b; --c5: #c79a1b; --c6: #5fb0c9; --good: #23845f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1b1f26; --ink: #e8eaed; --soft: #9aa3b0; --faint: #465a80; --grid: #272d36; --edge: #2b313b;
    --c1: #6aa0ff; --c2: #ff9a66; --c3: #4cc79b; --c4: #dd86cc; --c5: #e6c25a; --c6: #7fd0e8; --good: #5cd0a0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 15px; margin: 0 0 2px; }
.sub, .note { color: var(--soft); margin: 0; }
.note { font-size: 13px; margin-bottom: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile, section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
section { padding: 16px 18px; min-width: 0; }
.wide { grid-column: 1 / -1; }
.chart { min-height: 275px; }
.chart .u-legend { font-size: 12px; color: var(--soft); text-align: left; }
.chart .u-legend .u-series { padding-right: 8px; }
.chart .u-legend .u-marker { border-radius: 2px; }
.chart .u-select { background: color-mix(in srgb, var(--c1) 18%, transparent); }
.scroll { overflow-x: auto; }
table.figures { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.figures th { text-align: right; font-weight: 500; color: var(--soft); font-size: 13px; }
.figures td { text-align: right; border-top: 1px solid var(--edge); }
.figures th, .figures td { padding: 6px 10px; white-space: nowrap; }
.figures th:first-child, .figures td:first-child { text-align: left; padding-left: 0; }
.good { color: var(--good); }
pre { margin: 10px 0 0; padding: 12px 14px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--paper); border: 1px solid var(--edge); border-radius: 8px; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre b { color: var(--c1); font-weight: 600; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }
@media (max-width: 800px) { main { padding: 18px 12px 40px; } .grid { grid-template-columns: minmax(0, 1fr); } section { padding: 14px 12px; } }
`;
