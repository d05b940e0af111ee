"""The style sheet and the script that every HTML page carries inline."""

STYLE = """
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:1.5rem}
body{margin:0;background:var(--ground);color:var(--ink);line-height:1.55;
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.5rem 1.5rem 4rem}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .4rem}
h2{font-size:1.25rem;letter-spacing:-.01em;margin:0 0 1rem}
h3{font-size:.98rem;margin:0 0 .35rem;overflow-wrap:anywhere}
p{margin:0 0 .8rem;max-width:75ch}
header{margin-bottom:1.8rem}
header p{color:var(--muted);font-size:1.05rem}
section{background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:1.5rem 1.6rem;margin:0 0 1.4rem}
section>:last-child{margin-bottom:0}
footer{color:var(--muted);font-size:.85rem;padding:.5rem .2rem}
a{color:var(--accent)}
nav{font-size:.9rem}
nav p{color:var(--muted);font-size:.75rem;letter-spacing:.08em;text-transform:uppercase;margin:0 0 .4rem}
nav ol{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:0 1.2rem}
nav a{display:block;padding:.22rem 0;color:var(--ink);text-decoration:none}
nav a:hover{color:var(--accent)}
body.contents nav{max-width:1120px;margin:0 auto;padding:1.5rem 1.5rem 0}
@media (min-width:1240px){
  body.contents{display:grid;grid-template-columns:15rem minmax(0,1fr)}
  body.contents nav{position:sticky;top:0;align-self:start;margin:0;padding:3rem 0 2rem 2rem}
  body.contents nav ol{display:block}
  body.contents main{margin:0;max-width:1180px}
}
pre{background:var(--ground);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;margin:0 0 1rem;
  white-space:pre-wrap;overflow-wrap:anywhere;font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin:0 0 1rem}
caption{text-align:left;font-weight:600;padding:0 0 .4rem}
.scores{width:100%;font-size:.93rem}
.scores th,.scores td{padding:.42rem .4rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
.scores thead th{color:var(--muted);font-weight:600;font-size:.86rem}
.scores tbody th{text-align:left;font-weight:500;padding-left:0}
.scores thead td{padding:0}
.sort{all:unset;cursor:pointer}
.sort:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
[aria-sort] .sort::after{content:"\\2193";margin-left:.25em}
[aria-sort=ascending] .sort::after{content:"\\2191"}
.scores .best{font-weight:700;color:var(--accent)}
.facts{font-size:.92rem;margin:0 0 1rem}
.facts th{font-weight:500;color:var(--muted);text-align:left;vertical-align:top;padding:.2rem 1.4rem .2rem 0}
.facts td{padding:.2rem 0;overflow-wrap:anywhere}
.columns{columns:22rem 2;column-gap:2.5rem}
.columns .facts{margin:0;width:100%}
.columns tr{break-inside:avoid}
details{margin:0 0 1rem}
summary{cursor:pointer;color:var(--muted);margin-bottom:.6rem}
.tiles{display:flex;flex-wrap:wrap;gap:.9rem;margin:1.2rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--paper);border:1px solid var(--line);border-radius:12px;
  padding:.75rem 1.2rem;min-width:7.2rem}
.tiles b{display:block;font-size:1.65rem;line-height:1.2;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tiles small{font-size:.95rem;font-weight:500;color:var(--muted);margin-left:.12em}
.tiles span{color:var(--muted);font-size:.85rem}
figure{margin:0}
figcaption{color:var(--muted);font-size:.88rem;margin-top:.35rem;max-width:75ch}
.charts{display:grid;gap:1.6rem}
.chart img{display:block;max-width:100%;height:auto;border-radius:6px}
.zoom{display:block;padding:0;margin:0;border:0;background:none;cursor:zoom-in;font:inherit;color:inherit;max-width:100%}
.zoom:focus-visible,.strip:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.note,.comment{color:var(--muted);font-size:.92rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;font-size:.88rem;color:var(--muted);margin:0 0 1.1rem;padding:0;
  list-style:none}
.legend li{display:flex;align-items:center;gap:.45rem}
.ranked{margin:0 0 1.6rem}
.ranked+.ranked{border-top:1px solid var(--line);padding-top:1.3rem}
.ranked .score{font-weight:400;color:var(--muted);margin-left:.4rem;white-space:nowrap}
.ranked .comment{margin:0 0 .5rem}
.strip{display:flex;overflow-x:auto;padding:.25rem .1rem .5rem}
.strip .names{flex:none;display:flex;flex-direction:column;gap:2px;padding-top:4px;margin-right:.4rem}
.strip .names span{height:var(--shown);writing-mode:vertical-rl;transform:rotate(180deg);text-align:center;
  font-size:.68rem;letter-spacing:.06em;color:var(--muted)}
.strip ol{display:flex;gap:.55rem;margin:0;padding:0;list-style:none}
.strip.lying ol{flex-wrap:wrap;row-gap:.8rem}
.strip li,.sample.query{flex:none}
.sample.query{padding-right:.85rem;margin-right:.85rem;border-right:1px solid var(--line)}
.frame{position:relative;display:flex;flex-direction:column;gap:2px;padding:4px;border-radius:5px;background:var(--unknown)}
.query>.frame{background:var(--ink)}
.right>.frame,.mark.right{background:var(--right)}
.wrong>.frame,.mark.wrong{background:var(--wrong)}
.frame img,.frame .absent{display:block;height:var(--shown);width:calc(var(--shown)*var(--ratio));border-radius:2px}
.frame .absent{display:grid;place-items:center;background:var(--ground);color:var(--muted);font-size:.68rem}
.mark{width:17px;height:17px;flex:none;border-radius:5px 0 6px 0}
.frame .mark{position:absolute;top:0;left:0;pointer-events:none}
.mark path{fill:none;stroke:#fff;stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}
.lines{font-size:.74rem;line-height:1.38;text-align:center;color:var(--muted);margin-top:.3rem;
  width:calc(var(--shown)*var(--ratio) + 8px);overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.lines b,.lines span{display:block}
.lines b{color:var(--ink)}
.beyond{opacity:.5}
.limit{flex:none;border-left:2px dashed var(--muted);margin:0 .3rem;display:flex}
.limit span{writing-mode:vertical-rl;font-size:.7rem;color:var(--muted);padding-left:.2rem}
.maps{display:flex;flex-wrap:wrap;gap:1.4rem 2.4rem}
.attention .row{display:flex;flex-wrap:wrap;gap:1.1rem 1.8rem}
.attention figure div{display:flex;gap:var(--gap)}
.attention img{display:block;height:var(--shown);width:calc(var(--shown)*var(--ratio));border-radius:5px}
dialog{border:0;border-radius:12px;padding:1rem;background:var(--paper);color:var(--ink);max-width:96vw;max-height:96vh;
  box-shadow:0 20px 60px rgba(0,0,0,.4)}
dialog:focus{outline:0}
dialog::backdrop{background:rgba(10,14,18,.72)}
dialog img{display:block;max-width:92vw;max-height:82vh;margin:0 auto;border-radius:4px;cursor:zoom-out}
dialog .photo img{height:min(76vh,560px);width:auto}
dialog .plot img{width:min(92vw,1400px);object-fit:contain}
dialog p{margin:.7rem auto 0;color:var(--muted);font-size:.9rem;text-align:center}
@media (max-width:640px){main{padding:1.4rem .8rem 3rem}section{padding:1.1rem 1rem;border-radius:10px}
  body.contents nav{padding:1.2rem .8rem 0}.scores th,.scores td{padding:.42rem .5rem}
  .chart{overflow-x:auto}.chart .zoom,.chart .zoom img{max-width:none}.chart .zoom img{width:38rem}
  .ranked .score{display:block;margin-left:0;white-space:normal}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{nav,dialog{display:none}body.contents{display:block}
  .strip ol{flex-wrap:wrap}section{border:0;padding:0;break-inside:auto}
  .ranked,.chart,.attention{break-inside:avoid}}
"""
"""Style sheet; it expects --paper, --ink, --muted, --line, --accent, --ground, --right, --wrong and --unknown."""

SCRIPT = """
const box = document.querySelector("dialog");
const [stage, label] = box.children;
const order = (table, head) => {
  const column = head.cellIndex, body = table.tBodies[0];
  const sign = head.ariaSort === "descending" ? 1 : -1;
  const value = (row) => parseFloat(row.cells[column].textContent);
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.ariaSort = sign > 0 ? "ascending" : "descending";
  body.append(...rows);
};
document.addEventListener("click", (event) => {
  const head = event.target.closest(".sort")?.parentElement;
  if (head) order(head.closest("table"), head);
  const button = event.target.closest(".zoom");
  if (button) {
    stage.className = button.closest(".chart") ? "plot" : "photo";
    stage.replaceChildren(button.firstElementChild.cloneNode(true));
    label.textContent = button.dataset.label;
    box.showModal();
  } else if (box.open && (event.target === box || stage.contains(event.target))) {
    box.close();
  }
});
"""
"""Enlarges the picture of a clicked button in a dialog, which a click or the Escape key closes; the heading of a column
of scores puts the rows in its order, best first, and the other way round the second time."""
