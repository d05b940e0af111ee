"use strict";
// What the server says is put into the page as text, never as HTML.
const at = (id) => document.getElementById(id);
// The squared distance of opposite features.
const FURTHEST = 4;
let image = null;
let asked = 0;

function say(text, error = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", error);
}

function add(parent, kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  parent.append(made);
  return made;
}

function take(file) {
  image = file || null;
  if (at("preview").src) URL.revokeObjectURL(at("preview").src);
  at("preview").hidden = !image;
  at("hint").hidden = Boolean(image);
  if (image) at("preview").src = URL.createObjectURL(image);
  else at("preview").removeAttribute("src");
}

function judge() {
  const limit = Number(at("threshold").value);
  at("threshold_value").textContent = limit.toFixed(2);
  let same = 0;
  const matches = [...at("matches").children];
  for (const match of matches) {
    const within = Number(match.dataset.distance) <= limit;
    match.className = within ? "same" : "other";
    same += within;
  }
  if (matches.length) say(same ? `${same} of ${matches.length} within the distance` : "Nobody within the distance");
}

function show(matches) {
  at("matches").replaceChildren();
  matches.forEach((match, place) => {
    const item = add(at("matches"), "li");
    item.dataset.distance = match.distance;
    const picture = add(item, "img");
    picture.src = `picture/${match.row}`;
    picture.alt = match.name;
    picture.loading = "lazy";
    add(item, "p", `${place + 1}. ${match.name}`, "name");
    const camera = match.camera ? `camera ${match.camera}, ` : "";
    add(item, "p", `${match.modality}, ${camera}distance ${match.distance.toFixed(3)}`);
  });
  // Features are rarely as far apart as they could be: the slider ends where the matches do.
  const furthest = Math.max(at("threshold").dataset.measured, ...matches.map((match) => match.distance));
  at("threshold").max = Math.ceil(100 * furthest) / 100;
  judge();
}

async function search(event) {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!image && !text) return say("Drop an image or write a text first", true);
  const limit = at("query").dataset.largest;
  if (image && image.size > limit) return say(`The image has more than ${(limit / 1048576).toFixed(0)} MB`, true);
  const parameters = new URLSearchParams({ modality: at("modality").value, text });
  const boxes = [...at("cameras").querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked);
  if (boxes.length && !chosen.length) return say("Choose a camera", true);
  if (chosen.length < boxes.length) chosen.forEach((box) => parameters.append("camera", box.value));
  const turn = ++asked;
  say("Searching ...");
  try {
    const answer = await fetch(`search?${parameters}`, { method: "POST", body: image });
    const told = await answer.json();
    // A later search has begun.
    if (turn !== asked) return undefined;
    if (told.error) {
      at("matches").replaceChildren();
      return say(told.error, true);
    }
    return show(told.matches);
  } catch (error) {
    return say(`The server does not answer (${error.message})`, true);
  }
}

async function begin() {
  const facts = await (await fetch("facts")).json();
  at("about").textContent = `${facts.model}; ${facts.gallery}, ${facts.samples} samples`;
  at("query").dataset.largest = facts.largest;
  at("text_field").hidden = !facts.reads_text;
  for (const name of facts.modalities) add(at("modality"), "option", name).value = name;
  at("modality_field").hidden = facts.modalities.length < 2;
  at("camera_field").hidden = facts.cameras.length < 2;
  for (const camera of facts.cameras) {
    const label = add(at("cameras"), "label");
    const box = add(label, "input");
    box.type = "checkbox";
    box.defaultChecked = true;
    box.value = camera;
    label.append(` ${camera}`);
  }
  at("threshold").defaultValue = facts.threshold ?? FURTHEST;
  at("threshold").dataset.measured = facts.threshold ?? 0;
  at("unmeasured").hidden = facts.threshold !== null;
  judge();
}

at("file").addEventListener("change", () => take(at("file").files[0]));
at("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
at("drop").addEventListener("dragleave", () => at("drop").classList.remove("over"));
at("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
at("threshold").addEventListener("input", judge);
at("query").addEventListener("submit", search);
at("clear").addEventListener("click", () => {
  at("threshold").max = FURTHEST;
  at("query").reset();
  take(null);
  at("matches").replaceChildren();
  say("");
  at("threshold_value").textContent = Number(at("threshold").value).toFixed(2);
});
begin();
