// The timelines of a split's videos: searched, filtered and sorted, listed as the page is scrolled, drawn when in view.

const LANE = 12; // pixels of one source of one event
const LANE_GAP = 3;
const GUTTER = 20; // left of the lanes, for the sources' letters

const numVideos = data.videos.length;
const runs = data.tracks.map((track, n) => ({ ...track, n })).filter((track) => track.scores);
const videos = data.videos.map((name, n) => ({ name, n, lower: name.toLowerCase() }));
const segmentsOf = (n) => (data.lengths ? data.lengths[n] : data.segments);

/** A video's events by source: Map of class -> one array of T states a source; the ground truth's classes come first. */
function eventsOf(n) {
  const events = new Map();
  data.tracks.forEach((track, source) => {
    const flat = track.spans[n]; // class, state, first segment, the one after the last; and again
    for (let i = 0; i < flat.length; i += 4) {
      const [c, state, first, end] = flat.slice(i, i + 4);
      if (!events.has(c)) events.set(c, data.tracks.map(() => new Uint8Array(data.segments)));
      events.get(c)[source].fill(state, first, end);
    }
  });
  const kept = classesOf(n);
  for (const c of events.keys()) if (!kept.has(c)) events.delete(c);
  return events;
}

/** The classes of which any source has an event of the chosen modality in a video. */
function classesOf(n) {
  const seen = new Set();
  for (const { spans } of data.tracks) for (let i = 0; i < spans[n].length; i += 4) if (isChosen(spans[n][i + 1])) seen.add(spans[n][i]);
  return seen;
}

// ---- cards ----

const drawn = new Map(); // of the cards in sight or close to it: card -> [{canvas, states}]
const observer = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => (isIntersecting ? fill(target) : empty(target))),
  { rootMargin: "800px" });

const narrow = window.matchMedia("(max-width: 720px)");

/** Approximate height of a card before it is filled, so that the scroll bar is about right. */
function expectedHeight(n) {
  const event = data.tracks.length * (LANE + LANE_GAP) + 9 + (narrow.matches ? 22 : 0);
  return 62 + Math.max(1, classesOf(n).size) * event;
}

function makeCard({ name, n }) {
  const heading = element("header", {}, element("h2", {}, name), element("div", { className: "scores" }));
  const card = element("li", { className: "card" }, heading, element("div", { className: "lanes" }));
  card.dataset.video = n;
  card.style.minHeight = `${expectedHeight(n)}px`;
  observer.observe(card);
  return card;
}

function fill(card) {
  if (drawn.has(card)) return;
  const lanes = [];
  const rows = [];
  const count = segmentsOf(Number(card.dataset.video));
  for (const [c, states] of eventsOf(Number(card.dataset.video))) {
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", inWords(data.classes[c], states));
    rows.push(element("div", { className: "lane" }, element("div", { className: "label", title: data.classes[c] }, data.classes[c]), canvas));
    lanes.push({ canvas, states, name: data.classes[c], count });
  }
  const last = lanes.length
    ? element("div", { className: "seconds", ariaHidden: "true" }, ...[0, 0.5, 1].map((part) => element("span", {}, clock((part * count) / data.rate))))
    : element("p", { className: "none" }, "No source has an event here.");
  card.lastElementChild.replaceChildren(...rows, last);
  card.style.minHeight = "";
  drawn.set(card, lanes);
  draw(lanes, colours());
}

/** Free the memory of a card that is out of view. */
function empty(card) {
  if (!drawn.delete(card)) return;
  card.style.minHeight = `${card.offsetHeight}px`;
  card.lastElementChild.replaceChildren();
}

function inWords(name, states) {
  const bits = [["audible", 1], ["visible", 2]];
  const sources = data.tracks.map((track, n) => {
    const words = bits.flatMap(([kind, bit]) => {
      const stretches = runsOf(data.segments, (t) => (states[n][t] & bit ? 1 : 0)).map(([from, end]) => `${clock(from / data.rate)} to ${clock(end / data.rate)}`);
      return stretches.length ? [`${kind} ${stretches.join(", ")}`] : [];
    });
    return `${track.name} ${words.join(", ") || "nothing"}`;
  });
  return `${name}: ${sources.join("; ")}`;
}

function draw(lanes, palette) {
  const widths = lanes.map(({ canvas }) => canvas.clientWidth); // read all before the first is changed
  lanes.forEach(({ canvas, states, count }, lane) => {
    const width = widths[lane];
    const context = cleared(canvas, width, data.tracks.length * (LANE + LANE_GAP) - LANE_GAP);
    const scale = (width - GUTTER) / count; // a video's own length fills its card
    const seam = scale > 6 ? 1 : 0;
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    states.forEach((ofSource, n) => {
      const top = n * (LANE + LANE_GAP);
      context.fillStyle = palette.muted;
      context.fillText(data.tracks[n].letter, 2, top + LANE / 2 + 1);
      for (let t = 0; t < count; t++) {
        const [x, w] = [GUTTER + t * scale, scale - seam];
        context.fillStyle = palette.lane;
        context.fillRect(x, top, w, LANE);
        drawSecond(context, palette, ofSource[t], x, w, top, LANE, 1, 1);
      }
    });
  });
}

function redraw() {
  const palette = colours();
  for (const lanes of drawn.values()) draw(lanes, palette);
}

// ---- finding, filtering, sorting ----

const cards = []; // by video, made when they are first listed
const list = byId("list");
const chosen = { search: byId("search"), class: byId("class"), modality, metric: byId("metric"), run: byId("run"), order: byId("order") };

const score = (run, n) => run.scores[Number(chosen.metric.value)][n];

const ORDERS = {
  lowest: ["lowest first", (run) => (a, b) => score(run, a.n) - score(run, b.n)],
  highest: ["highest first", (run) => (a, b) => score(run, b.n) - score(run, a.n)],
  gain: ["largest gain over A first", (run) => (a, b) => difference(run, b) - difference(run, a)],
  loss: ["largest loss relative to A first", (run) => (a, b) => difference(run, a) - difference(run, b)],
  name: ["by name", () => (a, b) => (a.lower < b.lower ? -1 : 1)],
};
const difference = (run, video) => score(run, video.n) - score(runs[0], video.n);

let waiting = []; // videos that are not listed yet, in order
atEndOf(list.parentElement, listMore);

function listMore() {
  const next = waiting.splice(0, PORTION);
  list.append(...next.map(({ n }) => (cards[n] ??= makeCard(videos[n]))));
  for (const { n } of next) {
    const scores = runs.map((one) => element("span", {}, `${one.letter} ${score(one, n).toFixed(1)}`));
    cards[n].querySelector(".scores").replaceChildren(...scores);
  }
}

function arrange() {
  const wanted = chosen.search.value.trim().toLowerCase();
  const ofClass = chosen.class.value === "" ? null : Number(chosen.class.value);
  const run = runs[Number(chosen.run.value)];
  const every = ofClass === null && modality.value === "0"; // videos without events as well
  const hasEvent = (classes) => (ofClass === null ? classes.size > 0 : classes.has(ofClass));
  const shown = videos.filter(({ n, lower }) => lower.includes(wanted) && (every || hasEvent(classesOf(n))));
  shown.sort(ORDERS[chosen.order.value][1](run));
  list.replaceChildren();
  waiting = [...shown];
  listMore();
  const means = runs.map((one) => {
    const sum = shown.reduce((total, { n }) => total + score(one, n), 0);
    return `${one.letter} ${(sum / shown.length).toFixed(1)}`;
  });
  const metric = data.metrics[Number(chosen.metric.value)];
  byId("summary").textContent =
    `${shown.length.toLocaleString("en")} of ${numVideos.toLocaleString("en")} videos` +
    (shown.length ? `; mean ${metric} (%): ${means.join(", ")}` : "");
}

const LINKS = { "#worst": "lowest", "#best": "highest" };
const usualMetric = Math.max(0, data.metrics.indexOf("Segment-level Type"));

/** Sort as the address says: the worst or the best videos first. */
function followAddress() {
  if (!(location.hash in LINKS)) return;
  chosen.order.value = LINKS[location.hash];
  chosen.metric.value = usualMetric;
  arrange();
}

function option(value, text) {
  return element("option", { value, textContent: text });
}

// ---- start ----

fillHeader();
byId("legend").prepend(...data.tracks.map((track) => element("li", {}, element("b", {}, track.letter), track.name)));
const counts = data.classes.map(() => 0);
for (const { n } of videos) for (const c of classesOf(n)) counts[c] += 1;
const byName = data.classes.map((name, c) => [name, c]).sort();
chosen.class.append(option("", "All events"), ...byName.map(([name, c]) => option(c, `${name} (${counts[c]})`)));
chosen.metric.append(...data.metrics.map((name, i) => option(i, name)));
chosen.metric.value = usualMetric;
chosen.run.append(...runs.map((run, i) => option(i, `of ${run.letter}`)));
chosen.run.value = runs.length - 1;
chosen.run.hidden = runs.length < 2;
for (const [value, [text]] of Object.entries(ORDERS)) {
  if (runs.length > 1 || !["gain", "loss"].includes(value)) chosen.order.append(option(value, text));
}
modality.addEventListener("input", () => [...drawn.keys()].forEach((card) => (empty(card), fill(card))));
for (const control of [chosen.metric, chosen.order]) {
  control.addEventListener("input", () => history.replaceState(null, "", "#")); // a link works again
}
for (const control of Object.values(chosen)) control.addEventListener("input", arrange);
list.addEventListener("pointermove", (event) => {
  const lane = drawn.get(event.target.closest(".card"))?.find(({ canvas }) => canvas === event.target);
  if (!lane) return hideTooltip();
  const box = lane.canvas.getBoundingClientRect();
  const t = Math.floor(((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * lane.count);
  if (t < 0 || t >= lane.count) return hideTooltip();
  const words = ["neither", "audible", "visible", "audible and visible"];
  const sources = data.tracks.map((track, n) => `${track.letter}: ${words[lane.states[n][t]]}`);
  showTooltip(event, lane.name, [`${clock(t / data.rate)} to ${clock((t + 1) / data.rate)}`, ...sources]);
});
list.addEventListener("pointerleave", hideTooltip);
window.addEventListener("scroll", hideTooltip, { passive: true });
arrange();
followAddress();
window.addEventListener("hashchange", followAddress);
onAppearance(list, redraw);
