"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const told = document.getElementById("told");
const element = (name, parent, attributes = {}, text = "") => {
  const isDrawn = name === "svg" || parent.closest("svg");
  const made = document.createElementNS(isDrawn ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.textContent = text;
  return parent.appendChild(made);
};
const number = value => String(Number(value.toPrecision(3))).replace("-", "−");
const percent = (share, digits = 3) => `${String(Number((100 * share).toPrecision(digits))).replace("-", "−")}\u00a0%`;
const patchName = (picture, place) => `row ${Math.floor(place / picture.columns) + 1}, column ${place % picture.columns + 1}`;
const capital = text => text[0].toUpperCase() + text.slice(1);
const hue = strength => strength < 0 ? "var(--against)" : "var(--for)";
const opacity = strength => @OPACITY@ * Math.min(1, Math.abs(strength));

// Draws a picture with its patches; `pick` is called with the place of the patch that is pointed at, and −1 for none.
function drawPatches(parent, picture, source, name, pick) {
  const svg = element("svg", parent, {viewBox: `0 0 ${picture.width} ${picture.height}`, tabindex: 0, role: "application",
    "aria-label": `${name}: ${picture.rows} × ${picture.columns} patches, arrow keys move between them`});
  element("image", svg, {href: source, width: picture.width, height: picture.height});
  const [left, top, right, bottom] = picture.crop || [0, 0, picture.width, picture.height];
  const wide = (right - left) / picture.columns, high = (bottom - top) / picture.rows;
  const patches = Array.from({length: picture.rows * picture.columns}, (_, place) => element("rect", svg, {
    x: left + wide * (place % picture.columns), y: top + high * Math.floor(place / picture.columns), width: wide, height: high}));
  let cursor = -1;
  const move = place => { cursor = place; pick(place); };
  patches.forEach((rect, place) => ["pointerenter", "click"].forEach(event => rect.addEventListener(event, () => move(place))));
  ["pointerleave", "blur"].forEach(event => svg.addEventListener(event, () => move(-1)));
  svg.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -picture.columns, ArrowDown: picture.columns}[event.key];
    if (!step) return;
    event.preventDefault();
    const next = cursor < 0 ? 0 : cursor + step;
    if (next >= 0 && next < patches.length) move(next);
  });
  return {svg, patches};
}

// Colours patches by strengths from −1 to 1.
function paint(patches, strengths) {
  patches.forEach((rect, place) => {
    rect.setAttribute("fill", hue(strengths[place]));
    rect.setAttribute("fill-opacity", opacity(strengths[place]).toFixed(3));
    rect.classList.remove("chosen");
  });
}

// Fills a legend with a bar of colours and the values below it.
function drawScale(legend, values, unit = "") {
  legend.replaceChildren();
  if (typeof values[0] === "number") element("div", legend, {class: "colours", style:
    `background: linear-gradient(to right, ${values[0] < 0 ? "var(--against), " : ""}#ebebeb, var(--for))`});
  const scale = element("div", legend, {class: "scale"});
  values.forEach(value => element("span", scale, {}, typeof value === "number" ? number(value) + unit : value));
}

// Moves the focus by arrow keys among buttons.
function moveFocus(event, buttons, steps) {
  const place = buttons.indexOf(document.activeElement), step = steps[event.key];
  if (place < 0 || !step || !buttons[place + step]) return;
  event.preventDefault();
  buttons[place + step].focus();
}
