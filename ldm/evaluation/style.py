"""How the HTML report looks: one column on a narrow screen, contents at the side of a wide one."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f1; --paper: #ffffff; --ink: #22262b; --soft: #656c75; --line: #dfddd5;
  --accent: #b3431e; --track: #ece9e0; --head: #faf9f6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --paper: #1c2024; --ink: #e4e2dc; --soft: #9aa1a9; --line: #31373d;
    --accent: #f2946b; --track: #2a3036; --head: #22272c;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1, h2, h3, p, dl, ol, figure { margin: 0; }
a { color: var(--accent); text-underline-offset: 0.2em; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
small { color: var(--soft); font-size: 0.75em; font-weight: normal; }
header { padding: 1.5rem 0 1rem; max-width: 56rem; }
header p:last-child { color: var(--soft); font-size: 0.9rem; }
.kind { color: var(--accent); font-weight: 600; font-size: 0.85rem; }
h1 { font-size: clamp(1.8rem, 5vw, 2.8rem); line-height: 1.15; letter-spacing: -0.02em; }
h2 { font-size: 1.35rem; letter-spacing: -0.01em; margin-bottom: 0.8rem; }
h3 { font-size: 0.85rem; color: var(--soft); margin: 1rem 0 0.3rem; }
.about { display: flex; flex-wrap: wrap; gap: 0.3rem 2rem; margin: 0.9rem 0; }
.about dt { font-size: 0.75rem; color: var(--soft); }
.about dd { margin: 0; }
nav ol {
  list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem;
  font-size: 0.95rem;
}
section {
  background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: clamp(0.9rem, 3vw, 1.6rem); margin: 1.2rem 0; scroll-margin-top: 1rem;
}
.table { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table {
  border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums;
}
th, td { padding: 0.45rem 0.6rem; font-size: 0.9rem; text-align: right; vertical-align: bottom; }
tbody td { white-space: nowrap; }
thead th {
  font-weight: 600; font-size: 0.8rem; color: var(--soft); line-height: 1.3; vertical-align: bottom;
  min-width: 5rem;
}
thead th:nth-child(2) { min-width: 3rem; }
thead tr > * { background: var(--head); border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th, thead td {
  position: sticky; left: 0; text-align: left; font-weight: 500; background: var(--paper);
  min-width: 9rem; max-width: 22rem;
}
thead td { background: var(--head); }
td small { display: inline-block; min-width: 5.9em; }
.n { color: var(--soft); }
.share {
  background:
    linear-gradient(90deg, transparent var(--low), var(--accent) 0 max(var(--high),
      calc(var(--low) + 2px)), transparent 0) center bottom / calc(100% - 1.2rem) 3px no-repeat,
    linear-gradient(var(--track), var(--track)) center bottom / calc(100% - 1.2rem) 3px no-repeat;
}
.notes { max-width: 46rem; margin-top: 0.9rem; font-size: 0.92rem; }
.notes p + p { margin-top: 0.5rem; }
figure { margin-top: 1.2rem; overflow-x: auto; }
figure input { position: absolute; opacity: 0; }
figure label { cursor: zoom-in; display: block; }
figure input:focus-visible + label { outline: 3px solid var(--accent); }
figure img {
  display: block; max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line);
}
figure input:checked + label { cursor: zoom-out; }
figure input:checked + label img { max-width: none; }
figcaption { font-size: 0.9rem; margin-top: 0.4rem; position: sticky; left: 0; }
figcaption ol { columns: 16rem; padding-left: 2.2rem; font-size: 0.85rem; }
details { margin-top: 0.4rem; }
summary { cursor: pointer; color: var(--soft); font-size: 0.9rem; }
.protocol { margin-top: 1.2rem; border-top: 1px solid var(--line); padding-top: 0.7rem; }
.protocol dl { font-size: 0.88rem; }
.protocol dl dl { font-size: 1em; }
.protocol dl div { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: 0 1rem; }
.protocol dl div + div { margin-top: 0.2rem; }
.protocol dt { color: var(--soft); }
.protocol dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 40rem) {
  tbody th, thead td { min-width: 7rem; max-width: 8.5rem; overflow-wrap: break-word; }
  th, td { padding: 0.4rem 0.5rem; font-size: 0.82rem; }
  .protocol dl div { grid-template-columns: 1fr; }
  .protocol dd { margin: 0 0 0.4rem 0.8rem; }
}
@media (min-width: 64rem) {
  body { display: grid; grid-template-columns: 9rem minmax(0, 1fr); column-gap: 1.5rem; }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: 1.5rem; align-self: start; padding-top: 1.2rem; }
  nav ol { display: block; }
  nav li + li { margin-top: 0.35rem; }
}
@media print {
  body { display: block; background: none; }
  nav { display: none; }
  section { break-inside: avoid; border: 0; padding: 0; }
}
"""
