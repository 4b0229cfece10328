"""The look of a report: one style sheet, light and dark."""

CHARTS = """
:root {
  --paper: #faf9f6; --card: #ffffff; --ink: #1f2024; --muted: #6c6b68; --line: #e3e0d9;
  --accent: #0d6b68; --tint: #e6f1ef; --good: #1c7c4a; --bad: #b23c2a;
  --c0: #0d6b68; --c1: #cc6a1f; --c2: #5d52b5; --c3: #9a7a06; --c4: #b23a6f; --c5: #2f74c0; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --card: #1d2024; --ink: #e8e6e1; --muted: #9b9a96; --line: #33363b;
  --accent: #5cc4bd; --tint: #1d3330; --good: #6cc894; --bad: #ec8a78;
  --c0: #5cc4bd; --c1: #f0a35e; --c2: #a69cf0; --c3: #d9bd55; --c4: #f08bb4; --c5: #7eb4f0; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 18px; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 12px 6px; }
.chart figcaption { font-size: 14px; font-weight: 600; padding: 0 0 4px 4px; }
.chart svg { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { fill: var(--muted); font-size: 11px; font-family: inherit;
  font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); } .axis { stroke: var(--muted); }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.raw { stroke-width: 1; opacity: .3; } .dot { fill: var(--c); }
.bars { fill: var(--c); fill-opacity: .28; stroke: var(--c); stroke-width: 1.5; }
.guide { stroke: var(--muted); stroke-dasharray: 4 3; }
.chart .guide-label { fill: var(--ink); font-size: 10.5px; paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
.legend { margin: 0 0 12px; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
.charts .legend { margin: 6px 4px 0; }
.swatch { display: inline-block; width: 18px; height: 4px; border-radius: 2px; margin-right: 7px;
  vertical-align: 3px; background: var(--c); }
"""  # all that a chart needs, also where it stands alone

STYLE = (
    CHARTS
    + """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main, header > div, footer > div { max-width: 1080px; margin: 0 auto; padding: 0 28px; }
header { border-bottom: 1px solid var(--line); padding: 52px 0 26px; background: var(--card); }
.eyebrow { margin: 0 0 6px; font-size: 12.5px; letter-spacing: .09em; text-transform: uppercase;
  color: var(--accent); font-weight: 600; }
h1 { margin: 0; line-height: 1.12; letter-spacing: -.02em; font-weight: 650;
  font-size: clamp(28px, 4.4vw, 42px); text-wrap: balance; overflow-wrap: anywhere; }
.summary { margin: 12px 0 0; max-width: 68ch; color: var(--muted); font-size: 17px; }
.headline { display: flex; flex-wrap: wrap; gap: 14px 44px; margin: 30px 0 6px; padding: 0; }
.headline div { min-width: 108px; }
.headline dt { color: var(--muted); font-size: 13px; line-height: 1.35; max-width: 21ch; }
.headline dd { margin: 0 0 3px; font-size: 33px; font-weight: 600; letter-spacing: -.025em;
  line-height: 1.1; font-variant-numeric: tabular-nums; }
.headline small { font-size: 17px; font-weight: 500; color: var(--muted); margin-left: 2px; }
nav { margin-top: 24px; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 20px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
section { padding: 38px 0 6px; }
h2 { margin: 0 0 4px; font-size: 23px; letter-spacing: -.012em; font-weight: 630; }
h3 { margin: 30px 0 10px; font-size: 16px; font-weight: 630; }
.note { margin: 0 0 18px; max-width: 74ch; color: var(--muted); font-size: 15px; }
figure { margin: 0; } img { display: block; max-width: 100%; }
.pixels { image-rendering: pixelated; }
.scroll { overflow-x: auto; margin: 14px 0 22px; max-width: 100%; }
.tables { display: flex; flex-wrap: wrap; gap: 26px 36px; align-items: flex-start; }
.tables + .charts { margin-top: 26px; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 630; padding: 0 0 8px; font-size: 15.5px; }
th, td { padding: 6px 9px; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom-color: var(--muted); }
thead th { font-weight: 500; color: var(--muted); font-size: 13.5px; vertical-align: bottom; }
thead tr:last-child > * { border-bottom-color: var(--muted); }
thead .group { border-bottom: 1px solid var(--line); text-align: center; color: var(--ink); }
.metrics td, .metrics thead th { text-align: right; white-space: nowrap; }
.metrics thead .group { text-align: center; }
tbody th { text-align: left; font-weight: 500; padding-left: 0; }
.best { font-weight: 680; color: var(--accent); } .none { color: var(--muted); }
.gain { color: var(--good); font-weight: 600; } .loss { color: var(--bad); font-weight: 600; }
.pairs { width: 100%; table-layout: auto; }
.pairs th { width: 180px; color: var(--muted); vertical-align: top; white-space: nowrap; }
.pairs td { overflow-wrap: anywhere; }
.pairs th, .pairs td { padding-top: 4px; padding-bottom: 4px; }
pre { margin: 14px 0 0; padding: 13px 16px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  gap: 18px; margin: 6px 0 20px; }
.gallery figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden; display: flex; flex-direction: column; }
.gallery img, .missing { width: 100%; aspect-ratio: 1; object-fit: contain; background: #0000000d; }
.missing { display: grid; place-items: center; color: var(--muted); font-size: 13px; }
.gallery figcaption { padding: 10px 12px 11px; display: flex; flex-direction: column; flex: 1; }
.gallery p, .query p { margin: 0; overflow-wrap: anywhere; }
.said { font-size: 14px; line-height: 1.4; font-weight: 540; }
.earlier { color: var(--muted); font-size: 13px; line-height: 1.4; padding-bottom: 4px; }
.reference { color: var(--muted); font-size: 13px; line-height: 1.4; padding-top: 6px; }
.remark { color: var(--bad); font-size: 13px; padding-top: 4px; }
.mark { font-weight: 700; margin-right: 6px; }
.good { color: var(--good); } .bad { color: var(--bad); }
.meter { display: flex; align-items: center; gap: 9px; font-size: 12.5px; color: var(--muted);
  padding-top: 9px; margin-top: auto !important; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.bar { flex: 1; height: 5px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--good); }
.bar i.low { background: var(--bad); }
.divided { max-width: 780px; margin: 4px 0 20px; font-size: 14px; }
.divided .row { display: grid; grid-template-columns: minmax(90px, 170px) 1fr 84px; gap: 14px;
  align-items: center; padding: 4px 0; }
.divided .name { overflow-wrap: anywhere; }
.divided .amount { text-align: right; color: var(--muted); font-variant-numeric: tabular-nums; }
.whole { display: flex; height: 22px; border-radius: 5px; overflow: hidden;
  background: var(--line); }
.whole i { background: var(--c); color: var(--card); font-style: normal; font-weight: 600;
  font-size: 12px; line-height: 22px; min-width: 2px; text-indent: 7px; overflow: hidden;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
.whole i.rest { background: none; color: var(--muted); }
.texts { grid-template-columns: repeat(auto-fill, minmax(196px, 1fr)); }
.texts .text + .text { border-top: 1px solid var(--line); margin-top: 10px; padding-top: 9px; }
.origin { color: var(--muted); font-size: 12px; display: flex; justify-content: space-between; }
.rejected .said { color: var(--muted); font-weight: 450; }
.queries { display: flex; flex-direction: column; margin-bottom: 22px; }
.query { display: grid; grid-template-columns: minmax(170px, 1fr) minmax(0, 2.6fr); gap: 24px;
  align-items: center; padding: 14px 0; border-top: 1px solid var(--line); }
.rank { color: var(--muted); font-size: 13px; padding-top: 4px; }
.strip { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; }
.strip img, .strip .missing { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 7px; }
.strip .hit img, .strip .hit .missing { outline: 3px solid var(--good); outline-offset: 2px; }
.strip figcaption, .score { font-size: 12.5px; color: var(--muted); text-align: center;
  font-variant-numeric: tabular-nums; }
.strip figcaption { padding-top: 6px; }
.score b { color: var(--good); margin-right: 4px; }
.pairs-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(430px, 1fr));
  gap: 18px; margin-bottom: 20px; }
.pair { display: grid; grid-template-columns: 118px 1fr; gap: 18px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; padding: 15px; }
.pair img, .pair .missing { width: 118px; aspect-ratio: 1; object-fit: cover; border-radius: 7px; }
.pair figcaption p { margin: 0; text-align: center; }
.pair ol { margin: 0; padding: 0; list-style: none; font-size: 13.5px; line-height: 1.4; }
.pair li { display: flex; justify-content: space-between; gap: 14px; padding: 4px 8px;
  border-radius: 5px; overflow-wrap: anywhere; }
.pair li.hit { background: var(--tint); font-weight: 600; }
.pair .score { white-space: nowrap; }
footer { border-top: 1px solid var(--line); margin-top: 46px; padding: 18px 0 46px; font-size: 13px;
  color: var(--muted); }
@media (max-width: 640px) { .query { grid-template-columns: 1fr; gap: 12px; }
  .pairs-grid { grid-template-columns: 1fr; }
  main, header > div, footer > div { padding: 0 16px; } }
@media print { body { background: none; } section { break-inside: avoid-page; } }
"""
)
