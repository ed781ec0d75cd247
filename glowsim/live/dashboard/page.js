// The dashboard: draws the document of /v1/dashboard as it comes. Text is only ever set as text, never as markup.

const VERSION = 1;
const SILENT_S = 6;       // a connection that says nothing for so long is lost: the daemon ticks every second
const PATIENCE_S = [1, 2, 4, 8];
const FEW = 6;            // lines of a list that is meant for a glance
const TOKEN = "glowsim.token";
const WINDOW = "glowsim.window";

const at = (id) => document.getElementById(id);

// --- elements ---------------------------------------------------------------------------------------

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Puts fresh content in place of the old, unless it would read the same: a selection or a screen reader's place is kept.
function fill(node, ...children) {
  const next = el("div", {}, ...children);
  const same = (child, i) => child.isEqualNode(node.childNodes[i] ?? null);
  const { length } = next.childNodes;
  if (length !== node.childNodes.length || ![...next.childNodes].every(same)) node.replaceChildren(...next.childNodes);
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const SHAPES = {
  ok: ["circle", { cx: 8, cy: 8, r: 6 }],
  idle: ["path", { d: "M2 8H14" }],
  wait: ["circle", { cx: 8, cy: 8, r: 6 }],
  attention: ["path", { d: "M8 1.5 15 14H1Z" }],
  critical: ["path", { d: "M2 2H14V14H2Z" }],
};
const WORDS = { ok: "well", idle: "idle", attention: "attention", critical: "critical" };

function status(kind, word = WORDS[kind]) {
  const [tag, attributes] = SHAPES[kind];
  const shape = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg(tag, attributes));
  return el("span", { class: `status ${kind}` }, shape, word);
}

function spark(values, { wrong = null, label }) {
  const most = Math.max(...values.map((value) => value ?? 0), 0);
  const width = Math.max(values.length - 1, 1);
  const y = (value) => (20 - (18 * value) / (most || 1)).toFixed(2);
  const points = values.map((value, i) => (value === null ? null : `${i} ${y(value)}`));
  const stroke = (point, i) => {
    if (point === null) return "";
    if (i && points[i - 1] !== null) return `L${point}`;
    return `M${point}h0`;  // a point without neighbours is drawn as a dot
  };
  const line = points.map(stroke);
  const picture = svg("svg", {
    class: "spark", viewBox: `0 0 ${width} 20`, preserveAspectRatio: "none", role: "img", "aria-label": label,
  });
  if (most && !points.includes(null)) {
    picture.append(svg("path", { class: "area", d: `M0 20L${points.join("L")}L${width} 20Z` }));
  }
  picture.append(svg("path", { class: "line", d: most ? line.join("") : `M0 20L${width} 20` }));
  if (wrong !== null && wrong.some((n) => n > 0)) {
    const marks = wrong.map((n, i) => (n > 0 ? `M${i} 20V${y(Math.min(n, most))}` : ""));
    picture.append(svg("path", { class: "wrong", d: marks.join("") }));
  }
  return picture;
}

function meter(share, label) {
  const bar = svg("rect", { x: 0, y: 0, width: 100 * Math.min(Math.max(share, 0), 1), height: 10 });
  const picture = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, bar);
  return el("span", { class: "meter", title: label }, picture);
}

const none = (text) => el("p", { class: "none" }, text);
const list = (...items) => el("ul", { class: "list" }, ...items);

// --- figures as text --------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const DASH = "\u2013";

const count = (n) => (n < 100000 ? whole.format(n) : short.format(n));
const percent = (share) => (share === null ? DASH : `${three.format(100 * share)} %`);
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

function usd(value) {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "$0";
  if (value < 0.01) return `$${value.toPrecision(2)}`;
  return value < 100 ? `$${value.toFixed(2)}` : `$${value < 100000 ? whole.format(value) : short.format(value)}`;
}

function latency(s) {
  if (s === null || s === undefined) return DASH;
  if (s < 0.0995) return `${three.format(Number((1000 * s).toPrecision(2)))} ms`;
  if (s < 0.9995) return `${whole.format(1000 * s)} ms`;
  return s < 120 ? `${Number(s.toPrecision(3))} s` : lasting(s);
}

function lasting(s) {
  if (s < 1) return "less than a second";
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => s >= size);
  const [unit, size] = parts[first];
  const rest = parts[first + 1];
  const left = rest ? Math.floor((s % size) / rest[1]) : 0;
  return `${Math.floor(s / size)} ${unit}${left ? ` ${left} ${rest[0]}` : ""}`;
}

function rate(n, span_s) {
  if (!n) return "0";
  if (!(span_s >= 1)) return DASH;
  for (const [unit, size] of [["s", 1], ["min", 60], ["h", 3600]]) {
    const each = (n / span_s) * size;
    if (each >= 1) return `${three.format(each)}/${unit}`;
  }
  return `${three.format((n / span_s) * 86400)}/d`;
}

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dated = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

// A moment of the fleet's: by the clock where it has one, else since the simulation's beginning.
function moment(t_s) {
  if (t_s === null || t_s === undefined) return DASH;
  if (now.at_unix_s === null) return `at ${clocked(t_s)}`;
  const date = new Date((now.at_unix_s - (now.t_s - t_s)) * 1000);
  return now.t_s - t_s < 43200 ? clock.format(date) : dated.format(date);
}

const bad = (figures) => (figures.ended ? figures.bad / figures.ended : null);
const span = (i) => now.t_s - now.windows[i].since_s;

// --- what is shown ----------------------------------------------------------------------------------

let now = null;
let mixed = false;  // whether some agents are emulated and others are not
let chosen = Number(sessionStorage.getItem(WINDOW) ?? 1);
let order = { key: "status", up: true };
const expanded = new Set();
const rows = new Map();

const RANK = { critical: 0, attention: 1, ok: 2, idle: 3 };

// What a column sorts by; those marked ``down`` begin with the largest.
const COLUMNS = [
  { key: "name", title: "Agent", by: (agent) => agent.name },
  { key: "status", title: "Status", by: (agent) => RANK[agent.status] },
  { key: "trend", title: "Last 15 min", by: (agent) => agent.windows[1].arrived, kind: "spark-cell", down: true },
  { key: "rate", title: "Requests", by: (agent) => agent.windows[chosen].arrived, kind: "number", down: true },
  { key: "p50", title: "p50", by: (agent) => agent.windows[chosen].p50_s ?? -1, kind: "number wide", down: true },
  { key: "p95", title: "p95", by: (agent) => agent.windows[chosen].p95_s ?? -1, kind: "number", down: true },
  { key: "p99", title: "p99", by: (agent) => agent.windows[chosen].p99_s ?? -1, kind: "number wide", down: true },
  { key: "errors", title: "Errors", by: (agent) => bad(agent.windows[chosen]) ?? -1, kind: "number", down: true },
  { key: "queue", title: "Waiting", by: (agent) => agent.waiting, kind: "number", down: true },
  { key: "flight", title: "In flight", by: (agent) => agent.in_flight, kind: "number wide", down: true },
  { key: "instances", title: "Instances", by: (agent) => agent.instances.ready, kind: "number rest", down: true },
  { key: "alerts", title: "Alerts", by: (agent) => agent.alerts, kind: "number wide", down: true },
  { key: "cost", title: "Cost today", by: (agent) => agent.cost_usd.today, kind: "number rest", down: true },
];
const column = (key) => COLUMNS.find((each) => each.key === key);

function cells(agent) {
  const figures = agent.windows[chosen];
  const { ready, starting, draining, wanted } = agent.instances;
  const moving = [starting && `${starting} starting`, draining && `${draining} draining`].filter(Boolean).join(", ");
  const of = ready === wanted ? `${ready}` : `${ready} of ${wanted}`;
  return {
    status: status(agent.status),
    trend: spark(agent.trend.arrived, {
      wrong: agent.trend.bad, label: `${agent.name}: ${plural(agent.windows[1].arrived, "request")} in 15 minutes`,
    }),
    rate: rate(figures.arrived, span(chosen)),
    p50: latency(figures.p50_s),
    p95: latency(figures.p95_s),
    p99: latency(figures.p99_s),
    errors: figures.ended ? `${percent(bad(figures))}` : DASH,
    queue: count(agent.waiting),
    flight: `${count(agent.in_flight)} of ${count(agent.slots)}`,
    instances: moving ? `${of}, ${moving}` : of,
    alerts: count(agent.alerts),
    cost: usd(agent.cost_usd.today),
  };
}

function show(document_) {
  now = document_;
  const { fleet } = now;
  simulation();
  const of = now.simulation ? "simulation \u00b7 glowsim" : "glowsim";
  document.title = `${fleet.statuses.critical || fleet.statuses.attention ? "! " : ""}${now.title} \u00b7 ${of}`;
  say(at("title"), now.title);
  const emulated = now.agents.filter((agent) => agent.emulated).length;
  mixed = emulated > 0 && emulated < now.agents.length;
  const certified = now.certificate.status === "valid" ? ", certified" : "";
  say(at("source"), `\u00b7 ${now.source}${emulated && !mixed ? ", every agent emulated" : ""}${certified}`);
  headline(fleet);
  tiles(fleet);
  attention();
  top();
  agents();
  at("advised").hidden = !now.recommendations;
  if (now.recommendations) fill(at("advice"), ...advice(now.recommendations));
  fill(at("decisions"), ...decisions(now.decisions.slice(0, 8), now.controls.scaler, true));
  fill(at("alerts"), ...alerts());
  fill(at("queues"), ...queues());
  fill(at("breakers"), ...breakers());
  fill(at("rollouts"), ...rollouts());
  fill(at("learning"), ...learning());
  fill(at("costs"), ...costs());
  const zone = now.simulation ? "Times are simulated, since the beginning." : "Times of this browser's time zone.";
  const since = now.simulation ? "Nothing here is real: counted since the simulation began. "
    : `Counted since ${moment(now.began_s)}, ${lasting(now.t_s - now.began_s)} ago; what was before is in the journal. `;
  say(at("about"),
    since +
    "Latencies are from arrival to answer, within 1 %. Errors: turned away, failed or answered with an apology. " +
    `A window is up to a minute longer than its name, 24 h up to an hour. ${zone}`);
}

function figure(value) {
  return Number(value.toPrecision(3)).toLocaleString("en");
}

function headline(fleet) {
  const { critical, attention: some } = fleet.statuses;
  const kind = critical ? "critical" : some ? "attention" : "ok";
  const parts = [critical && `${critical} critical`, some && `${some} need${some === 1 ? "s" : ""} attention`].filter(Boolean);
  const words = parts.length ? `Of ${plural(fleet.agents, "agent")}, ${parts.join(" and ")}` : `${plural(fleet.agents, "agent")}: all is well`;
  const node = at("headline");
  const { lapse } = now.certificate;
  const lapsed = lapse && el("span", { class: "lapse" }, status("attention",
    `the certificate lapsed: ${lapse.what} was ${figure(lapse.value)}, earned on ${figure(lapse.low)} to ${figure(lapse.high)}`));
  fill(node, status(kind, words), lapsed ?? "", now.admitting ? "" : " \u00b7 the daemon is stopping: it takes in nothing more");
}

function tile(name, value, more, picture = null, words = false) {
  return el("div", {},
    el("dt", {}, name),
    el("dd", { class: words ? "value words" : "value" }, value),
    el("dd", { class: "more" }, more),
    picture);
}

function tiles(fleet) {
  const figures = fleet.windows[chosen];
  const day = fleet.windows[2];
  const over = now.windows[chosen].name;
  const rated = fleet.feedback.rating;
  const { tokens, instances, today, month, basis_s } = fleet.cost_usd;
  const lookups = figures.hits + figures.misses;
  const cached = lookups ? `cache ${percent(figures.hits / lookups)} of ${count(lookups)}` : "no cacheable requests";
  const grows = basis_s < 86400 ? `at the pace of ${lasting(basis_s)}` : "at the pace of 24 h";
  fill(at("tiles"),
    tile("Agents", count(fleet.agents), `${count(fleet.active)} active in 24 h`),
    tile(`Requests, ${over}`, rate(figures.arrived, span(chosen)), `${count(figures.arrived)} in ${over}, ${count(day.arrived)} in 24 h`,
      spark(fleet.trend.arrived, { label: "Requests in the last 15 minutes" })),
    tile(`p95, ${over}`, latency(figures.p95_s), `p50 ${latency(figures.p50_s)}, p99 ${latency(figures.p99_s)}`,
      spark(fleet.trend.p95_s, { label: "p95 in the last 15 minutes" })),
    tile(`Errors, ${over}`, percent(bad(figures)), `${count(figures.bad)} of ${count(figures.ended)} ended, ${count(figures.abandoned)} left`,
      spark(fleet.trend.bad, { label: "Errors in the last 15 minutes" })),
    rated
      ? tile("Satisfaction", `${rated.mean.toFixed(1)} / 5`, `of ${plural(rated.n, "rating")}`)
      : tile("Satisfaction", "No feedback yet", "mean of ratings from 1 to 5", null, true),
    tile("Cost today", usd(today), month === null ? "projection after 10 minutes" : `${usd(month)} in 30 days, ${grows}`),
    tile("Cost so far", usd(tokens + instances), `tokens ${usd(tokens)}, instances ${usd(instances)}`),
    tile("Waiting", count(fleet.waiting), `${count(fleet.in_flight)} in flight of ${plural(fleet.slots, "slot")}`),
    tile("Instances", count(fleet.instances.ready), `of ${count(fleet.instances.wanted)} wanted; ${count(fleet.instances.starting)} starting, ${count(fleet.instances.draining)} draining`),
    tile(`Retries, ${over}`, count(figures.retries), cached));
}

function line(head, when, why, kind = null) {
  return el("li", {},
    el("div", { class: "head" }, kind, ...head, when === null ? null : el("span", { class: "when" }, when)),
    why ? el("div", { class: "why" }, why) : null);
}

const name = (text) => el("span", { class: "name" }, text);
const link = (agent) => el("button", { class: "plain", type: "button", "data-agent": agent }, agent);

function attention() {
  const many = now.attention;
  if (!many.length) return fill(at("attention"), none("Nobody. An agent comes here when its instances, breakers, alerts, errors or latencies say so."));
  const items = many.slice(0, FEW).map((each) => line([link(each.agent)], null, each.why.join("; "), status(each.status)));
  const rest = many.length - items.length;
  fill(at("attention"), list(...items), rest > 0
    ? el("p", { class: "more-link" }, el("button", { class: "plain", type: "button", "data-filter": "critical attention" }, `and ${rest} more, in the table`))
    : null);
}

function top() {
  if (!now.top.length) return fill(at("top"), none("Nobody yet: it takes 20 requests that have ended within 24 h."));
  fill(at("top"), list(...now.top.map((each) => line(
    [link(each.agent), `${percent(each.answered / each.ended)} answered`], `p95 ${latency(each.p95_s)}`,
    `${count(each.answered)} of ${count(each.ended)}: at least ${percent(each.at_least)}, with 95 % confidence` +
    (each.satisfaction ? `; ${plural(each.satisfaction.n, "rating")}, mean ${each.satisfaction.mean.toFixed(1)} of 5` : "")))));
}

function decisions(some, scaler, named) {
  if (some.length) {
    return [list(...some.map((each) => line(
      [named ? link(each.agent) : null, `${each.before} \u2192 ${plural(each.want, "instance")}`],
      moment(each.t_s), each.why)))];
  }
  return [none(scaler ? "None yet: the scaler has kept every size so far." : "No scaler: name one under controllers.scaler, and its decisions show here.")];
}

function advice(standing) {
  if (!standing.length) return [none("None stands: the controllers would have the fleet as it is.")];
  const whose = (each) => (now.agents.some((agent) => agent.name === each.agent) ? link(each.agent) : name(each.agent));
  return [list(...standing.slice(0, FEW).map((each) => line(
    [whose(each), each.advice], `since ${moment(each.since_s)}`, each.why + (each.times > 1 ? `; ${count(each.times)} times` : "")))),
  standing.length > FEW ? none(`and ${count(standing.length - FEW)} more`) : null];
}

const LOUDNESS = { critical: "critical", warning: "attention", info: "idle" };

function alerts() {
  const shown = [];
  const one = (each) => line([link(each.agent), each.subject], moment(each.t_s), each.why, status(LOUDNESS[each.severity], each.severity));
  const { open, recent } = now.alerts;
  if (open.length) shown.push(el("h3", {}, `Open: ${open.length}`), list(...open.slice(0, FEW).map(one)));
  const over = recent.filter((each) => !open.some((other) => other.t_s === each.t_s && other.agent === each.agent && other.subject === each.subject));
  if (over.length) shown.push(el("h3", {}, "Before"), list(...over.slice(0, FEW).map(one)));
  if (!shown.length) shown.push(none(now.controls.detector ? "None so far." : "None. Detectors under controllers.detector would raise them; controllers that fail do in any case."));
  return shown;
}

function queues() {
  const waiting = now.agents.filter((agent) => agent.waiting > 0).sort((a, b) => b.waiting - a.waiting);
  if (!waiting.length) return [none("Nothing waits.")];
  const most = waiting[0].waiting;
  return [list(...waiting.slice(0, FEW).map((agent) => line(
    [link(agent.name), meter(agent.waiting / most, `${agent.waiting} waiting`), `${count(agent.waiting)} waiting`],
    `${count(agent.in_flight)} of ${count(agent.slots)} in flight`, null))),
  waiting.length > FEW ? none(`and ${waiting.length - FEW} more agents`) : null];
}

function breakers() {
  if (now.breakers.length) {
    return [list(...now.breakers.slice(0, FEW).map((each) => line(
      [link(each.agent), `instance ${each.instance}`], each.since_s === null ? null : `since ${moment(each.since_s)}`,
      each.again_s === null ? "tried with care" : `tried again at ${moment(each.again_s)}`,
      status(each.state === "open" ? "critical" : "attention", each.state)))),
    now.breakers.length > FEW ? none(`and ${now.breakers.length - FEW} more`) : null];
  }
  return [none(now.controls.breaker ? "All closed." : "No breakers: name one under controllers.breaker, and what it keeps from work shows here.")];
}

function rollouts() {
  if (!now.rollouts.length) return [none("No rollout: give an agent variants and a splitter, and its stages and their evidence show here.")];
  return now.rollouts.map((each) => {
    const last = each.stages[0];
    const share = last ? `${percent(each.weight)} of the units, stage ${last.stage}` : "first stage";
    const kind = !last ? "wait" : last.stage === 0 ? "critical" : each.weight >= 1 ? "ok" : "wait";
    const word = !last ? "running" : last.stage === 0 ? "taken back" : each.weight >= 1 ? "deployed" : "running";
    return el("div", {},
      list(line([link(each.agent), share], last ? moment(last.t_s) : null, last ? last.why : "no stage has ended yet", status(kind, word))),
      grid(["Variant", "Ended", "Share", "Errors", "p50", "p95"],
        each.variants.map((variant) => [variant.name, count(variant.ended), percent(variant.share), percent(variant.error_share), latency(variant.p50_s), latency(variant.p95_s)])));
  });
}

function grid(heads, lines) {
  const kind = (i) => (i ? "number" : null);
  return el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((head, i) => el("th", { scope: "col", class: kind(i) }, head)))),
    el("tbody", {}, ...lines.map((cells_) => el("tr", {}, ...cells_.map((cell, i) => el("td", { class: kind(i) }, cell))))));
}

function learning() {
  const metrics = Object.entries(now.fleet.feedback).sort(([a], [b]) => (a < b ? -1 : 1));
  const deployed = now.rollouts.filter((each) => each.weight !== null && each.weight >= 1).length;
  const back = now.rollouts.filter((each) => each.stages.length && each.stages[0].stage === 0).length;
  const shown = [];
  if (metrics.length) shown.push(grid(["Feedback", "Values", "Mean"], metrics.map(([metric, each]) => [metric, count(each.n), each.mean.toFixed(2)])));
  else shown.push(none("No feedback yet: ratings, corrections, complaints and late labels count here as they come."));
  if (now.rollouts.length) {
    shown.push(el("p", { class: "note" }, `${plural(now.rollouts.length, "rollout")}: ${now.rollouts.length - deployed - back} running, ${deployed} deployed, ${back} taken back.`));
  }
  return shown;
}

function costs() {
  const sum = (each) => each.cost_usd.tokens + each.cost_usd.instances;
  const domains = [...now.domains].sort((a, b) => sum(b) - sum(a));
  const all = domains.reduce((total, each) => total + sum(each), 0);
  const table = el("table", { class: "costs" },
    el("thead", {}, el("tr", {}, ...[["Domain"], ["Agents", "number rest"], ["So far", "number"], ["", "share"], ["Share", "number"], ["Today", "number"], ["30 days", "number"]]
      .map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
    el("tbody", {}, ...domains.map((each) => el("tr", {},
      el("td", {}, each.domain ?? "(no domain)"),
      el("td", { class: "number rest" }, count(each.agents)),
      el("td", { class: "number" }, usd(sum(each))),
      el("td", { class: "share" }, meter(all ? sum(each) / all : 0, percent(all ? sum(each) / all : 0))),
      el("td", { class: "number" }, all ? percent(Number((sum(each) / all).toPrecision(2))) : DASH),
      el("td", { class: "number" }, usd(each.cost_usd.today)),
      el("td", { class: "number" }, usd(each.cost_usd.month))))));
  const basis = now.fleet.cost_usd.basis_s;
  const note = now.fleet.cost_usd.month === null
    ? "The projection for 30 days comes after 10 minutes."
    : `30 days: the cost of the last ${lasting(basis)}, thirty days on at that pace; nights and weekends are in it only as far as they were.`;
  return [table, el("p", { class: "note" }, `${note} Today is since ${now.simulation ? "the last simulated midnight" : "midnight UTC"}, or since the count began.`)];
}

// --- a simulation in progress -----------------------------------------------------------------------

const SPEEDS = [1, 2, 5, 10, 60, 600, 3600, 86400, "max"];
const times = (speed) => (speed === "max" ? "as fast as it goes" : `${speed < 100 ? three.format(speed) : count(speed)}\u00d7 real time`);
const VERDICTS = {
  met: ["ok", "every service level is met"],
  "not met": ["critical", "a service level is not met"],
  undecided: ["attention", "a service level is undecided: one replication is too few"],
};

function simulation() {
  const { simulation: its } = now;
  at("simulation").hidden = !its;
  if (!its) return;
  const over = its.state === "ended";
  const at_ = `${clocked(now.t_s)} of ${clocked(its.duration_s)}`;
  const draining = !over && now.t_s > its.duration_s ? "; arrivals are over, what is open is finished" : "";
  const speed = its.speed === null ? "" : `, ${times(its.speed)}`;
  const [kind, word] = over ? ["idle", "Simulation ended"] : its.state === "paused" ? ["wait", "Simulation paused"] : ["ok", "Simulation running"];
  const verdict = over && its.verdict ? status(...VERDICTS[its.verdict]) : over ? "its report is being written" : null;
  fill(at("progress"), status(kind, word), " ", over ? `at ${clocked(now.t_s)}${verdict ? ": " : ""}` : `${at_}${draining}${speed}`, verdict);
  at("share").value = over ? 1 : Math.min(now.t_s / its.duration_s, 1);
  at("pace").hidden = over;
  say(at("pause"), its.state === "paused" ? "Resume" : "Pause");
  const options = SPEEDS.includes(its.wished) ? SPEEDS : [...SPEEDS.slice(0, -1), its.wished].sort((a, b) => a - b).concat("max");
  fill(at("speed"), ...options.map((each) => el("option", { value: each }, times(each))));
  if (document.activeElement !== at("speed")) at("speed").value = its.wished;
}

// A simulated time to the second: what runs is not rounded to its two largest units.
function clocked(s) {
  const days = Math.floor(s / 86400);
  const parts = [Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, Math.floor(s) % 60].map((part) => String(part).padStart(2, "0"));
  const time = parts.join(":");
  return days ? `${days} d${time === "00:00:00" ? "" : ` ${time}`}` : time;
}

async function wish(order) {
  try {
    const response = await fetch("v1/simulation", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(order), credentials: "omit",
    });
    const said = response.ok ? null : await response.json();
    say(at("unheard"), said ? said.error.message : "");
  } catch {
    say(at("unheard"), "glowsim cannot be reached: the pace is as it was");
  }
}

const pause = () => now?.simulation && wish({ paused: now.simulation.state !== "paused" });

// --- the agents' table ------------------------------------------------------------------------------

function agents() {
  const words = at("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (agent) => {
    const text = `${agent.name} ${agent.domain ?? ""} ${agent.model} ${agent.region} ${WORDS[agent.status]} ${agent.emulated ? "emulated" : ""}`.toLowerCase();
    const statuses = words.filter((word) => word === "critical" || word === "attention");
    return words.every((word) => (statuses.includes(word) ? statuses.includes(agent.status) : text.includes(word)));
  };
  const shown = now.agents.filter(matches);
  const { by } = column(order.key);
  const sign = order.up ? 1 : -1;
  const before = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  shown.sort((a, b) => sign * before(by(a), by(b)) || before(a.name, b.name));
  say(at("shown"), shown.length === now.agents.length ? `${shown.length}` : `${shown.length} of ${now.agents.length}`);
  at("none").hidden = shown.length > 0;
  say(at("none"), "No agent matches the filter; Esc clears it.");
  const wanted = [];
  for (const agent of shown) {
    if (!rows.has(agent.name)) rows.set(agent.name, row(agent));
    const { line: node, details, open } = rows.get(agent.name);
    const is = expanded.has(agent.name);
    draw(rows.get(agent.name), agent);
    open.setAttribute("aria-expanded", is);
    node.classList.toggle("open", is);
    wanted.push(node);
    if (is) {
      fill(details.firstChild, ...detail(agent));
      wanted.push(details);
    }
  }
  place(at("rows"), wanted);
}

// Puts rows in order and moves none that is in its place: the focus, which a move would lose, is given back.
function place(parent, wanted) {
  const focused = document.activeElement;
  let here = parent.firstChild;
  for (const node of wanted) {
    if (node === here) here = here.nextSibling;
    else parent.insertBefore(node, here);
  }
  while (here !== null) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
  if (document.activeElement !== focused && focused.isConnected) focused.focus({ preventScroll: true });
}

function row(agent) {
  const open = el("button", { class: "plain agent", type: "button", "aria-expanded": "false", "aria-controls": `details-${agent.name}` }, agent.name);
  const about = [agent.domain, mixed && agent.emulated ? "emulated" : null].filter(Boolean).join(", ");
  open.addEventListener("click", () => {
    if (!expanded.delete(agent.name)) expanded.add(agent.name);
    agents();
  });
  const made = {
    open,
    line: el("tr", { "data-row": agent.name }, el("td", {}, open, " ", about ? el("small", {}, about) : null)),
    details: el("tr", { class: "details", id: `details-${agent.name}` }, el("td", { colspan: COLUMNS.length })),
    cells: {},
  };
  for (const { key, title, kind } of COLUMNS.slice(1)) {
    made.cells[key] = el("td", { class: kind, "data-name": key === "status" ? null : title, "data-cell": key });
    made.line.append(made.cells[key]);
  }
  return made;
}

function draw(made, agent) {
  for (const [key, content] of Object.entries(cells(agent))) {
    const cell = made.cells[key];
    if (typeof content === "string") say(cell, content);
    else fill(cell, content);
  }
  made.cells.queue.classList.toggle("dim", !agent.waiting);
  made.cells.alerts.classList.toggle("dim", !agent.alerts);
  made.line.classList.toggle("idle-row", agent.status === "idle");
  made.line.title = agent.why.join("; ");
}

function detail(agent) {
  const block = (title, ...content) => el("div", {}, el("h3", {}, title), ...content);
  const facts = [["Domain", agent.domain ?? DASH], ["Model", agent.model], ["Region", agent.region],
    ["Instances", now.simulation ? "simulated" : agent.emulated ? "emulated: no upstream is named" : "real"],
    ["Open requests", count(agent.open)], ["Cost so far", usd(agent.cost_usd.tokens + agent.cost_usd.instances)],
    ["30 days", usd(agent.cost_usd.month)]];
  const outcomes = Object.entries(agent.outcomes).map(([key, n]) => `${count(n)} ${key.replaceAll("_", " ")}`);
  const feedback = Object.entries(agent.feedback).map(([key, each]) => `${key} ${three.format(each.mean)} (${count(each.n)})`);
  const replicas = agent.replicas.map((each) => el("span", { class: `replica ${each.state}${each.gate === null ? "" : " gated"}` },
    `${each.number} ${each.state}${each.gate === null ? "" : each.gate ? ", breaker half-open" : ", breaker open"} ${each.in_flight}/${each.slots}`));
  return [el("div", { class: "grid" },
    block("Status", status(agent.status), el("p", { class: "note" }, agent.why.join("; ") || (agent.status === "idle" ? "no request in 24 h" : "within its limits"))),
    block("Latency and errors", grid(["", "Requests", "p50", "p95", "p99", "Errors"], agent.windows.map((each, i) => [
      now.windows[i].name, count(each.arrived), latency(each.p50_s), latency(each.p95_s), latency(each.p99_s), percent(bad(each))]))),
    block(`Instances: ${agent.instances.ready} ready of ${agent.instances.wanted} wanted${agent.scaling_paused ? ", scaling paused" : ""}`,
      replicas.length ? el("div", { class: "replicas" }, ...replicas) : none("There is none.")),
    block("Scaling decisions", ...decisions(agent.decisions, now.controls.scaler, false)),
    block("How requests ended", el("p", {}, outcomes.join(", ") || "None has yet."), el("p", { class: "note" }, feedback.length ? `Feedback: ${feedback.join(", ")}` : "No feedback yet.")),
    block("About", el("dl", {}, ...facts.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]))))];
}

function sortBy(key) {
  order = { key, up: order.key === key ? !order.up : !column(key).down };
  heads();
  if (now) agents();
}

function heads() {
  for (const node of at("heads").children) {
    if (node.dataset.key === order.key) node.setAttribute("aria-sort", order.up ? "ascending" : "descending");
    else node.removeAttribute("aria-sort");
  }
  at("sort").value = order.key;
}

function find(text) {
  at("filter").value = text;
  agents();
}

function reveal(agent) {
  expanded.add(agent);
  find("");
  const made = rows.get(agent);
  made.open.focus();
  made.line.scrollIntoView({ block: "center" });
}

function prepare() {
  for (const { key, title, kind } of COLUMNS) {
    at("heads").append(el("th", { scope: "col", class: kind, "data-key": key }, el("button", { type: "button", onclick: () => sortBy(key) }, title)));
    at("sort").append(el("option", { value: key }, title));
  }
  ["1 min", "15 min", "24 h"].forEach((title, i) => {
    const radio = el("input", { type: "radio", name: "window", value: i, checked: i === chosen });
    radio.addEventListener("change", () => {
      chosen = i;
      sessionStorage.setItem(WINDOW, i);
      if (now) show(now);
    });
    at("windows").append(el("label", {}, radio, el("span", {}, title)));
  });
  heads();
  at("sort").addEventListener("change", (event) => {
    order = { key: null };
    sortBy(event.target.value);
  });
  at("filter").addEventListener("input", () => now && agents());
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-agent], button[data-filter]");
    if (button?.dataset.agent) reveal(button.dataset.agent);
    else if (button) {
      find(button.dataset.filter);
      at("agents").focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "p" && !typing && now?.simulation && now.simulation.state !== "ended" && !event.ctrlKey && !event.metaKey && !event.altKey) pause();
    else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      at("filter").focus();
    } else if (event.key === "Escape" && now && (event.target === at("filter") || at("filter").value)) {
      find("");
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const all = [...at("rows").querySelectorAll("button.agent")];
      const place_ = all.indexOf(event.target);
      const to = event.target === at("filter") && event.key === "ArrowDown" ? 0 : place_ < 0 ? -1 : place_ + (event.key === "ArrowDown" ? 1 : -1);
      if (all[to]) {
        event.preventDefault();
        all[to].focus();
      }
    }
  });
  at("pause").addEventListener("click", pause);
  at("speed").addEventListener("change", (event) => wish({ speed: event.target.value === "max" ? "max" : Number(event.target.value) }));
  at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, at("token").value.trim());
    at("login").hidden = true;
    follow();
  });
}

// --- the connection ---------------------------------------------------------------------------------

let lostAt = null;
let hurry = () => {};

function connected(kind, text) {
  document.body.classList.toggle("lost", kind === "critical" && now !== null);
  fill(at("link"), status(kind, text));
}

class Refused extends Error {}

// Reads events until the connection ends or falls silent; every whole document is drawn.
async function listen(stop) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let silence = setTimeout(stop, SILENT_S * 1000);
  const response = await fetch("v1/dashboard/events", { headers, cache: "no-store", credentials: "omit", signal: stop.signal });
  if (response.status === 401) throw new Refused(token ? "That is not the admin's token." : "");
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Error(said?.error?.message ?? `glowsim answered ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    clearTimeout(silence);
    if (done) return;
    silence = setTimeout(stop, SILENT_S * 1000);
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((each) => each.startsWith("data: ")).map((each) => each.slice(6)).join("\n");
      if (data) take(JSON.parse(data));
    }
    if (now) {
      lostAt = null;
      at("fleet").hidden = false;
      connected("ok", now.simulation ? `simulation, ${clock.format(Date.now())}` : `live, ${clock.format(Date.now())}`);
    }
  }
}

function take(data) {
  if (data.version !== VERSION) throw new Error(`this page reads version ${VERSION} of the data, the daemon sends ${data.version}: reload the page`);
  show(data);
}

async function follow() {
  for (let failures = 0; ; failures += 1) {
    const controller = new AbortController();
    const stop = () => controller.abort();
    stop.signal = controller.signal;
    let why = "glowsim closed the connection";
    try {
      await listen(stop);
    } catch (error) {
      if (error instanceof Refused) return ask(error.message);
      why = controller.signal.aborted ? "glowsim says nothing" : error instanceof TypeError ? "glowsim cannot be reached" : error.message;
    } finally {
      stop();
    }
    if (lostAt === null) {
      lostAt = new Date();
      failures = 0;
    }
    if (now?.simulation?.state === "ended") connected("wait", "glowsim was closed: these are the last figures");
    else connected("critical", `no connection since ${clock.format(lostAt)}: ${why}; asking again`);
    await new Promise((resolve) => {
      hurry = resolve;
      setTimeout(resolve, 1000 * PATIENCE_S[Math.min(failures, PATIENCE_S.length - 1)]);
    });
  }
}

function ask(refused) {
  sessionStorage.removeItem(TOKEN);
  now = null;
  at("fleet").hidden = true;
  at("login").hidden = false;
  say(at("refused"), refused);
  at("token").value = "";
  at("token").focus();
  connected("wait", "waiting for the token");
}

addEventListener("online", () => hurry());
document.addEventListener("visibilitychange", () => document.hidden || hurry());
prepare();
connected("wait", "connecting");
follow();
