// The page of one video: player, frames, waveform and one row per event, all on one time axis.

const ROW_HEIGHT = 26;
const STRIP_HEIGHT = 56;
const WAVE_HEIGHT = 38;
const MAX_ZOOM = 64;
const MOST_LISTED = 100; // events of one moment

/** The bytes of a base64 text. */
function bytesOf(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = characters.charCodeAt(n);
  return bytes;
}

const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

const numEvents = data.events.length;
const tracks = data.tracks.map((track) => ({
  name: track.name,
  audio: floatsOf(track.audio), // (T, C), row by row
  visual: floatsOf(track.visual),
  audioAround: track.audio_around && floatsOf(track.audio_around),
  visualAround: track.visual_around && floatsOf(track.visual_around),
}));
const peaks = data.peaks && bytesOf(data.peaks);
const strip = new Image();

let threshold = data.threshold;
let zoom = 1;
let rows = []; // {event, track, canvas}

/** 0 for none, 1 audible, 2 visible, 3 both: where the segment's probability and that of the video around exceed it. */
function stateOf(track, t, c) {
  const i = t * numEvents + c;
  const limit = Math.fround(threshold); // probabilities are float32, as where they were computed
  const exceeds = (of, around) => of[i] > limit && (!around || around[i] > limit);
  return (exceeds(track.audio, track.audioAround) ? 1 : 0) + (exceeds(track.visual, track.visualAround) ? 2 : 0);
}

// ---- the player: the video where it can be played, else only a position ----

const video = byId("video");
let plays = Boolean(data.video);
let position = 0; // seconds, where no video can be played

const now = () => (plays ? video.currentTime : position);

function seek(seconds) {
  position = Math.min(Math.max(seconds, 0), data.duration);
  if (plays) video.currentTime = position;
  keepInAddress();
  follow();
  update();
}

let keeping; // the timer of the address

/** Make the address a link to the current moment, once the position settles: browsers limit such changes. */
function keepInAddress() {
  clearTimeout(keeping);
  keeping = setTimeout(() => history.replaceState(null, "", `#t=${now().toFixed(1)}`), 300);
}

/** Go to the moment that the address names, such as #t=12.4 (seconds). */
function followAddress() {
  const [, seconds] = /^#t=(\d+(?:\.\d*)?)$/.exec(location.hash) ?? [];
  if (seconds) seek(Number(seconds));
}

function togglePlay() {
  if (!plays) return;
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function withoutVideo(message) {
  plays = false;
  video.hidden = true;
  byId("play").disabled = true;
  byId("no-video").textContent = message;
  byId("no-video").hidden = false;
}

function frame() {
  update();
  follow();
  if (!video.paused && !video.ended) requestAnimationFrame(frame);
}

if (plays) {
  video.addEventListener("error", () => withoutVideo(`This browser cannot play ${data.video_name}. The timeline works without it.`));
  video.addEventListener("play", frame);
  for (const type of ["play", "pause", "ended"]) {
    video.addEventListener(type, () => (byId("play").textContent = video.paused ? "Play" : "Pause"));
  }
  for (const type of ["pause", "seeked"]) video.addEventListener(type, keepInAddress); // by its own controls, too
  for (const type of ["seeked", "timeupdate", "loadedmetadata"]) video.addEventListener(type, update);
  video.src = data.video;
} else {
  withoutVideo("This page does not include the video itself.");
}
byId("play").addEventListener("click", togglePlay);

// ---- the time axis ----

const stage = byId("stage");
const ruler = byId("ruler");

/** Where the canvases begin, how wide they are, pixels a second, and the time at their left edge. */
function axis() {
  const width = ruler.clientWidth;
  const scale = (width * zoom) / data.duration;
  return { left: ruler.offsetLeft, width, scale, start: stage.scrollLeft / scale };
}

function timeAt(event) {
  const { scale, start } = axis();
  return start + (event.clientX - ruler.getBoundingClientRect().left) / scale;
}

/** Segments that are in sight, as [first, end). */
function segmentsInSight({ start, width, scale }) {
  const end = Math.ceil((start + width / scale) * data.rate);
  return [Math.max(0, Math.floor(start * data.rate)), Math.min(data.segments, end)];
}

/** Start and end of a segment in seconds. */
function timesOf(t) {
  return [t / data.rate, Math.min((t + 1) / data.rate, data.duration)];
}

function setZoom(wanted) {
  const { width } = axis();
  const held = now();
  zoom = Math.min(Math.max(wanted, 1), MAX_ZOOM);
  byId("zoom-out").disabled = zoom === 1;
  byId("zoom-in").disabled = zoom === MAX_ZOOM;
  layOut();
  stage.scrollLeft = (held / data.duration) * width * zoom - width / 2;
  draw();
}

function layOut() {
  const view = byId("view");
  view.style.width = `${stage.clientWidth}px`;
  byId("extent").style.width = `${stage.clientWidth + ruler.clientWidth * (zoom - 1)}px`;
}

/** Keep the playhead in sight. */
function follow() {
  const { width, scale, start } = axis();
  const x = (now() - start) * scale;
  if (zoom > 1 && (x < 0 || x > width)) stage.scrollLeft += x - width * 0.1;
}

// ---- drawing ----

function drawRuler(palette) {
  const at = axis();
  const context = cleared(ruler, at.width, 22);
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
  const step = steps.find((seconds) => seconds * at.scale >= 46) || 7200;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  for (let t = Math.floor(at.start); t <= Math.min(Math.ceil(at.start + at.width / at.scale), data.duration); t++) {
    const x = (t - at.start) * at.scale;
    const labelled = t % step === 0;
    if (!labelled && at.scale < 5) continue;
    context.fillStyle = labelled ? palette.muted : palette.line;
    context.fillRect(Math.round(x), labelled ? 14 : 17, 1, 8);
    if (!labelled) continue;
    const text = clock(t);
    const width = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(x - width / 2, 3), at.width - width), 1);
  }
}

function drawStrip() {
  const at = axis();
  const context = cleared(byId("strip"), at.width, STRIP_HEIGHT);
  const { count, width, height } = data.strip;
  const shown = (width / height) * STRIP_HEIGHT;
  // As many frames as fit, each from the middle of its place.
  const places = Math.max(1, Math.round(at.width / shown));
  const place = at.width / places;
  const cut = Math.min(1, place / shown); // share of a frame's width that its place shows
  for (let n = 0; n < places; n++) {
    const time = at.start + ((n + 0.5) * place) / at.scale;
    const index = Math.min(count - 1, Math.max(0, Math.floor((time / data.duration) * count)));
    const from = index * width + (width * (1 - cut)) / 2;
    context.drawImage(strip, from, 0, width * cut, height, n * place, 0, place - 1, STRIP_HEIGHT);
  }
}

function drawWave(palette) {
  const at = axis();
  const context = cleared(byId("wave"), at.width, WAVE_HEIGHT);
  context.fillStyle = palette.muted;
  const perPixel = peaks.length / data.duration / at.scale;
  for (let x = 0; x < at.width; x++) {
    const from = Math.floor((at.start + x / at.scale) * (peaks.length / data.duration));
    let peak = 0;
    for (let i = from; i < Math.max(from + perPixel, from + 1) && i < peaks.length; i++) peak = Math.max(peak, peaks[i]);
    const height = Math.max(1, (peak / 255) * WAVE_HEIGHT);
    context.fillRect(x, (WAVE_HEIGHT - height) / 2, 1, height);
  }
}

function drawRow({ event, track, canvas }, palette, at) {
  const context = cleared(canvas, at.width, ROW_HEIGHT);
  const [first, end] = segmentsInSight(at);
  context.fillStyle = palette.lane;
  context.fillRect(0, 0, at.width, ROW_HEIGHT / 2 - 1);
  context.fillRect(0, ROW_HEIGHT / 2 + 1, at.width, ROW_HEIGHT / 2 - 1);
  const seam = at.scale / data.rate > 7 ? 1 : 0; // between segments, so that they can be counted
  for (let t = first; t < end; t++) {
    const state = stateOf(track, t, event);
    if (!state) continue;
    const [from, to] = timesOf(t);
    const x = (from - at.start) * at.scale;
    const width = (to - from) * at.scale - seam;
    const i = t * numEvents + event;
    const alpha = (p) => 0.15 + 0.85 * p;
    drawSecond(context, palette, state, x, Math.max(width, 0.5), 0, ROW_HEIGHT, alpha(track.audio[i]), alpha(track.visual[i]));
  }
}

/** Everything that depends on the width, the zoom or the colours. */
function draw() {
  const palette = colours();
  drawRuler(palette);
  if (data.strip && strip.complete) drawStrip();
  if (peaks) drawWave(palette);
  const at = axis();
  for (const row of rows) if (inSight.has(row.canvas)) drawRow(row, palette, at);
  update();
}

const inSight = new Set(); // canvases of the rows in sight or close to it, which alone are drawn
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inSight.add(target);
    else if (inSight.delete(target)) target.width = 1; // frees its memory
  }
  draw();
}, { rootMargin: "800px" });

/** Everything that depends on the position. */
function update() {
  const seconds = Math.min(now(), data.duration);
  const { left, width, scale, start } = axis();
  const x = (seconds - start) * scale;
  const playhead = byId("playhead");
  playhead.style.transform = `translateX(${left + x}px)`;
  playhead.hidden = x < -1 || x > width + 1;
  ruler.setAttribute("aria-valuenow", seconds.toFixed(1));
  ruler.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(data.duration)}`);
  showEventsAt(seconds);
}

let readout = ""; // what the panel shows, so that it changes only when it must

function showEventsAt(seconds) {
  const t = Math.min(Math.floor(seconds * data.rate), data.segments - 1);
  byId("now-time").textContent = clock(Math.floor(seconds * 10) / 10);
  const key = `${t} ${threshold} ${modality.value}`;
  if (key === readout) return;
  readout = key;
  const items = [];
  for (const track of tracks) {
    for (let c = 0; c < numEvents; c++) {
      const state = stateOf(track, t, c);
      if (!isChosen(state)) continue;
      const source = tracks.length > 1 ? [element("span", { className: "source" }, ` ${track.name}`)] : [];
      const i = t * numEvents + c;
      items.push(
        element("li", {},
          element("span", { className: "event" }, data.events[c], ...source),
          meter("audible", track.audio[i], state & 1),
          meter("visible", track.visual[i], state & 2)));
    }
  }
  const more = items.splice(MOST_LISTED).length;
  if (more) items.push(element("li", { className: "nothing" }, `and ${more} more`));
  if (!items.length) items.push(element("li", { className: "nothing" }, noEvents()));
  byId("now-events").replaceChildren(...items);
}

function noEvents() {
  return `No event ${modality.value === "0" ? "" : "of this modality "}exceeds the threshold; lower it to see more.`;
}

function meter(kind, probability, on) {
  const fill = element("i", { className: kind });
  fill.style.width = `${100 * (probability || 0)}%`;
  return element("div", { className: on ? "meter" : "meter off" },
    kind, element("span", { className: "bar" }, fill), element("b", {}, shown(probability, 2)));
}

/** A probability in digits; NaN where the source has no score for the event in this modality. */
function shown(probability, digits) {
  return Number.isNaN(probability) ? "no score" : probability.toFixed(digits);
}

// ---- rows of events and their table, which depend on the threshold ----

/** The spans of an event of a track: {kind, bits, from, to, probability}. */
function spansOf(track, c) {
  const kinds = [
    ["audible", 1, (i) => track.audio[i]],
    ["visible", 2, (i) => track.visual[i]],
    ["audio-visual", 3, (i) => Math.min(track.audio[i], track.visual[i])],
  ];
  return kinds.flatMap(([kind, bits, probability]) =>
    runsOf(data.segments, (t) => ((stateOf(track, t, c) & bits) === bits ? 1 : 0)).map(([from, end]) => {
      let sum = 0;
      for (let t = from; t < end; t++) sum += probability(t * numEvents + c);
      return { kind, bits, from: from / data.rate, to: timesOf(end - 1)[1], probability: sum / (end - from) };
    }));
}

/** "Dog: audible 0:02 to 0:05; visible 0:00 to 0:03", for screen readers. */
function inWords(heading, spans) {
  const words = ["audible", "visible"].flatMap((kind) => {
    const stretches = spans.filter((span) => span.kind === kind).map((span) => `${clock(span.from)} to ${clock(span.to)}`);
    return stretches.length ? [`${kind} ${stretches.join(", ")}`] : [];
  });
  return `${heading}: ${words.join("; ") || "neither audible nor visible"}`;
}

function buildRows() {
  const wanted = Number(modality.value);
  const isWanted = ({ bits }) => !wanted || bits === wanted;
  const all = byId("all-events").checked && !wanted;
  const isTruth = (track) => track.audio.every((p) => p === 0 || p === 1);
  rows = [];
  const lines = [];
  const elements = [];
  for (let c = 0; c < numEvents; c++) {
    const ofTracks = tracks.map((track) => spansOf(track, c));
    if (!all && !ofTracks.some((spans) => spans.some(isWanted))) continue;
    tracks.forEach((track, n) => {
      const heading = tracks.length > 1 ? `${data.events[c]}, ${track.name}` : data.events[c];
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", inWords(heading, ofTracks[n]));
      const name = n ? [] : [data.events[c]];
      if (tracks.length > 1) name.push(element("small", {}, `${n ? "" : " "}${track.name}`));
      const label = element("div", { className: "label", title: heading }, ...name);
      elements.push(element("div", { className: n ? "row event-row same-event" : "row event-row" }, label, canvas));
      rows.push({ event: c, track, canvas });
      for (const span of ofTracks[n].filter(isWanted)) lines.push({ heading: [data.events[c], track.name], certain: isTruth(track), ...span });
    });
  }
  observer.disconnect();
  inSight.clear();
  byId("rows").replaceChildren(...elements);
  for (const { canvas } of rows) observer.observe(canvas);
  byId("no-events").hidden = rows.length > 0;
  byId("no-events").textContent = noEvents();
  tableLines = lines;
  fillTable();
  draw();
}

let tableLines = [];
let waiting = []; // those that are not in the table yet

/** Fill the table while it is open, as far as it is scrolled: for a long video it has many thousands of lines. */
function fillTable() {
  byId("table").replaceChildren();
  waiting = byId("table-box").open ? tableLines.sort((a, b) => a.from - b.from).slice() : [];
  listMore();
}

function listMore() {
  byId("table").append(...waiting.splice(0, PORTION).map(({ heading, kind, from, to, probability, certain }) => {
    const go = element("button", { type: "button", onclick: () => seek(from) }, clock(from));
    const names = tracks.length > 1 ? heading : heading.slice(0, 1);
    const cells = [go, clock(to), ...names, kind, certain ? "" : probability.toFixed(2)];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  }));
}

atEndOf(byId("table").closest(".table-scroll"), listMore);

/** A function that runs at most once a frame, however often it is called. */
function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

const rebuild = onceAFrame(buildRows);

function setThreshold(value) {
  threshold = value;
  byId("threshold").value = value;
  byId("threshold-value").textContent = value.toFixed(2);
  readout = "";
}

byId("threshold").addEventListener("input", (event) => {
  setThreshold(Number(event.target.value));
  rebuild();
});
byId("all-events").addEventListener("change", buildRows);
modality.addEventListener("input", buildRows);
byId("table-box").addEventListener("toggle", fillTable);
byId("zoom-in").addEventListener("click", () => setZoom(zoom * 2));
byId("zoom-out").addEventListener("click", () => setZoom(zoom / 2));
stage.addEventListener("scroll", onceAFrame(draw));

// ---- pointer and keyboard ----

const onTimeline = (event) => event.target instanceof HTMLCanvasElement;

stage.addEventListener("click", (event) => {
  if (onTimeline(event)) seek(timeAt(event));
});
ruler.addEventListener("pointerdown", (event) => ruler.setPointerCapture(event.pointerId));
ruler.addEventListener("pointermove", (event) => {
  if (event.buttons & 1) seek(timeAt(event));
});
stage.addEventListener("pointermove", (event) => {
  const row = rows.find(({ canvas }) => canvas === event.target);
  const t = Math.floor(timeAt(event) * data.rate);
  if (t < 0 || t >= data.segments || !onTimeline(event)) return hideTooltip();
  const stretch = timesOf(t).map(clock).join(" to ");
  if (!row) return showTooltip(event, clock(Math.max(0, timeAt(event))), []);
  const { track, event: c } = row;
  const i = t * numEvents + c;
  const probability = (of, around) => shown(of[i], 3) + (around ? ` (video level ${shown(around[i], 3)})` : "");
  const lines = [
    stretch,
    `audible ${probability(track.audio, track.audioAround)}`,
    `visible ${probability(track.visual, track.visualAround)}`,
  ];
  showTooltip(event, tracks.length > 1 ? `${data.events[c]}, ${track.name}` : data.events[c], lines);
});
stage.addEventListener("pointerleave", hideTooltip);
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  setZoom(event.deltaY < 0 ? zoom * 2 : zoom / 2);
}, { passive: false });

document.addEventListener("keydown", (event) => {
  const of = event.target;
  const usesKeys = of.matches("input, select, textarea, video, button, summary");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowLeft: now() - 1, ArrowRight: now() + 1, Home: 0, End: data.duration };
  if (event.key in moves && !of.matches("input, select, video")) seek(moves[event.key]);
  else if (event.key === " " && !usesKeys) togglePlay();
  else return;
  event.preventDefault();
});

// ---- exports ----

const FORMATS = {
  "events.csv": "CSV", "events.json": "JSON", "events.vtt": "WebVTT", "events.txt": "Audacity labels",
  "events.eaf": "ELAN", "activitynet.json": "ActivityNet",
};

/** The text of an export. That of events.json gets the probabilities from the page's own. */
function exported(name) {
  const content = data.exports[name];
  if (typeof content === "string") return content;
  const rowOf = (of, t) => [...of.subarray(t * numEvents, (t + 1) * numEvents)];
  const rows = (of) => (of ? Array.from({ length: data.segments }, (_, t) => rowOf(of, t)) : null);
  const ofTrack = ({ name, audio, visual, audioAround, visualAround }) =>
    [name, { audible: rows(audio), visible: rows(visual), audible_around: rows(audioAround), visible_around: rows(visualAround) }];
  return JSON.stringify({ ...content, probabilities: Object.fromEntries(tracks.map(ofTrack)) }, null, 1) + "\n";
}

function download(name) {
  const href = URL.createObjectURL(new Blob([exported(name)]));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

byId("downloads").hidden = !data.exports;
byId("downloads").append(`Download (threshold ${data.threshold.toFixed(2)})`, ...Object.keys(data.exports ?? {}).map((name) =>
  element("button", { type: "button", title: name, onclick: () => download(name) }, FORMATS[name])));

// ---- start ----

fillHeader();
byId("num-events").textContent = numEvents;
const columns = ["From", "To", "Event", ...(tracks.length > 1 ? ["Source"] : []), "Kind", "Probability"];
byId("table-head").append(...columns.map((name) => element("th", { scope: "col" }, name)));
ruler.setAttribute("aria-valuemax", data.duration);
setThreshold(threshold);
if (data.strip) {
  byId("strip-row").hidden = false;
  strip.addEventListener("load", draw);
  strip.src = data.strip.image;
}
byId("wave-row").hidden = !peaks;
byId("zoom-out").disabled = true;
layOut();
buildRows();
followAddress();
window.addEventListener("hashchange", followAddress);
onAppearance(stage, () => {
  layOut();
  draw();
});
