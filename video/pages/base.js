"use strict";
// Functions that both pages share. Names from files reach the page as text nodes only, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text nodes. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Seconds as 0:07, 12:30 or 1:02:30, with tenths where they are not zero. */
function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const whole = Math.floor(tenths / 10);
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const fraction = tenths % 10 ? `.${tenths % 10}` : "";
  return (h ? `${h}:${two(m)}` : `${m}`) + `:${two(s)}${fraction}`;
}

/** The page's colours as they are now, in light or dark mode. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["audible", "visible", "both", "lane", "line", "ink", "muted", "panel", "accent"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Prepare a canvas of this size in CSS pixels, sharp on any screen. Returns its empty context. */
function cleared(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

/** Maximal runs of equal state other than 0, as [first, end, state]; state(t) is 0, 1 audible, 2 visible or 3 both. */
function runsOf(count, state) {
  const runs = [];
  for (let t = 0; t < count; t++) {
    const now = state(t);
    const last = runs[runs.length - 1];
    if (last && last[1] === t && last[2] === now) last[1] = t + 1;
    else if (now) runs.push([t, t + 1, now]);
  }
  return runs;
}

const modality = byId("modality");
const MODALITIES = ["All modalities", "Audible", "Visible", "Audible and visible"];
modality.append(...MODALITIES.map((textContent, value) => element("option", { value, textContent })));

/** Whether a state is of the modality that is chosen. */
const isChosen = (state) => Boolean(state) && (state & modality.value) === Number(modality.value);

/** Draw one second of an event: audible in the upper lane, visible in the lower one, both as one block. */
function drawSecond(context, palette, state, x, width, top, height, audioAlpha, visualAlpha) {
  const half = height / 2;
  const gap = state === 3 ? 0 : 1;
  if (state & 1) {
    context.globalAlpha = audioAlpha;
    context.fillStyle = state === 3 ? palette.both : palette.audible;
    context.fillRect(x, top, width, half - gap);
  }
  if (state & 2) {
    context.globalAlpha = visualAlpha;
    context.fillStyle = state === 3 ? palette.both : palette.visible;
    context.fillRect(x, top + half + gap, width, half - gap);
  }
  context.globalAlpha = 1;
}

const tooltip = document.body.appendChild(element("div", { className: "tooltip", hidden: true }));

/** Show a heading and lines beside the pointer, within the window. */
function showTooltip(event, heading, lines) {
  tooltip.replaceChildren(element("strong", {}, heading), ...lines.map((line) => element("div", {}, line)));
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - width - 8);
  const below = event.clientY + 18;
  const top = below + height > window.innerHeight - 8 ? event.clientY - height - 12 : below;
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${Math.max(8, top)}px`;
}

function hideTooltip() {
  tooltip.hidden = true;
}

const PORTION = 300; // lines of a long list that are added at a time

/** Call whenever the end of an element's content comes close to being in sight. */
function atEndOf(box, listMore) {
  const end = box.appendChild(element("div"));
  const near = (entries) => entries.some(({ isIntersecting }) => isIntersecting) && listMore();
  new IntersectionObserver(near, { rootMargin: "2000px" }).observe(end);
}

/** Call when colours or the width of an element change. */
function onAppearance(watched, redraw) {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(redraw).observe(watched);
}

/** Title, notes and the warning about features or weights that are not real. */
function fillHeader() {
  byId("title").textContent = data.title;
  byId("notes").append(...data.notes.map((note) => element("li", {}, note)));
  byId("warning").textContent = data.warning;
  byId("warning").hidden = !data.warning;
}
