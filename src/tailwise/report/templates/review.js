// Decide by keys or buttons, one sample beside its nearest good one; what is decided is saved in the form of the sheet.
"use strict";
{
  const $ = (id) => document.getElementById(id);
  const sheet = JSON.parse($("sheet").textContent);
  const cards = [...document.querySelectorAll("li[data-mark]")];
  const words = { anomaly: "defect", normal: "good" };
  const deck = sheet.deck.map((each, place) => (
    { ...each, line: sheet.lines[place], picture: cards[place].querySelector("img")?.src }));
  const near = (one) => one.near === null ? null : [...deck, ...sheet.goods][one.near];
  const key = "tailwise review " + sheet.key;
  let marks = {}, at = 0, past = [], kept = true, saved = true;

  try {
    const before = JSON.parse(localStorage.getItem(key) || "{}");
    for (const [place, verdict] of Object.entries(before.marks || {}))
      if (sheet.rows[place] && words[verdict]) marks[place] = verdict;
    at = Math.min(Math.max(0, before.at | 0), deck.length - 1);
    saved = before.saved !== false;
  } catch { kept = false; }

  const keep = () => {
    try { localStorage.setItem(key, JSON.stringify({ marks, at, saved })); kept = true; } catch { kept = false; }
    $("kept").hidden = kept;
  };
  const kind = () => sheet.kinds[deck[at].kind];

  function pane(id, name, source, text) {
    const image = $(id).querySelector("img");
    image.hidden = !source;
    if (source) image.src = source;
    image.alt = name;
    $(id).querySelector(".text").textContent = text || "";
  }

  function show(said = "") {
    const one = deck[at], good = near(one) || { sample: "none" };
    const blink = $("blink").getAttribute("aria-pressed") === "true";
    const shown = blink ? good : one;
    pane("suspect", shown.sample, shown.picture, shown.text);
    pane("nearest", good.sample, good.picture, good.text);
    pane("suspect-place", "the place in " + shown.sample, one.places[blink ? 1 : 0]);
    pane("nearest-place", "the same place in " + good.sample, one.places[1]);
    $("suspect-name").textContent = blink ? `${good.sample}, the nearest good` : one.sample;
    $("nearest-name").textContent = good.sample;
    $("blink").disabled = !(one.picture && good.picture);
    for (const id of ["kind-good", "kind-defect"]) $(id).hidden = one.kind === null;
    $("of-kind").textContent = one.kind === null ? "" : `One of a kind of ${kind().length}. `;
    const mark = marks[one.line];
    $("good").setAttribute("aria-pressed", mark === "normal");
    $("defect").setAttribute("aria-pressed", mark === "anomaly");
    const decided = deck.filter((each) => marks[each.line]);
    const defects = decided.filter((each) => marks[each.line] === "anomaly").length;
    $("bar").value = decided.length;
    $("count").textContent = `${decided.length} of ${deck.length}`;
    $("counts").textContent = ` decided: ${defects} ${defects === 1 ? "defect" : "defects"}, ${decided.length - defects} good. `
      + `This is number ${at + 1}, score ${one.score}.`;
    $("undo").disabled = !past.length;
    if (said) $("said").textContent = `${said} ${decided.length} of ${deck.length} decided.`;
    cards.forEach((each, place) => {
      const mark = marks[deck[place].line] || "";
      each.querySelector(".mark").textContent = words[mark] || "";
      each.dataset.mark = mark;
      each.toggleAttribute("data-now", place === at);
    });
  }

  function go(place, said) {
    at = Math.min(Math.max(0, place), deck.length - 1);
    $("blink").setAttribute("aria-pressed", false);
    keep();
    show(said);
  }

  function decide(verdict, places) {
    past.push([at, places.map((place) => [place, marks[place]])]);
    for (const place of places) if (verdict) marks[place] = verdict; else delete marks[place];
    saved = false;
    const name = deck[at].sample, many = places.length > 1;
    const said = many ? `A kind of ${places.length}: ${words[verdict]}.` : `${name}: ${words[verdict] || "left open"}.`;
    let next = at + 1;
    while (many && next < deck.length && places.includes(deck[next].line)) next++;
    go(next, said);
  }

  function undo() {
    if (!past.length) return;
    const [place, before] = past.pop();
    for (const [each, verdict] of before) if (verdict) marks[each] = verdict; else delete marks[each];
    saved = false;
    go(place, "Undone.");
  }

  function save() {
    const lines = sheet.rows.map(([before, verdict, after], place) => `${before},${marks[place] || verdict},${after}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
    link.download = "review.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    saved = true;
    keep();
    $("next").hidden = false;
    show("Saved as review.csv.");
  }

  function blink() {
    if ($("blink").disabled) return;
    $("blink").setAttribute("aria-pressed", $("blink").getAttribute("aria-pressed") !== "true");
    show();
  }

  // Both have the shape of the suspect.
  $("suspect").querySelector("img").addEventListener("load", (event) => {
    const image = event.target;
    if ($("blink").getAttribute("aria-pressed") !== "true")
      $("pair").style.setProperty("--shape", image.naturalWidth / image.naturalHeight);
  });

  // Both pictures are enlarged about the same place, which the pointer moves.
  function enlarge(event) {
    const on = $("pair").classList.toggle("large");
    $("enlarge").setAttribute("aria-pressed", on);
    move(event);
  }
  function move(event) {
    const image = event?.target?.closest?.(".slot > img"), box = image && image.parentElement.getBoundingClientRect();
    const share = box ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
    for (const each of $("pair").querySelectorAll(".slot > img"))
      each.style.transformOrigin = share.map((part) => 100 * part + "%").join(" ");
  }

  const actions = {
    good: () => decide("normal", [deck[at].line]),
    defect: () => decide("anomaly", [deck[at].line]),
    unsure: () => decide("", [deck[at].line]),
    "kind-good": () => kind() && decide("normal", kind()),
    "kind-defect": () => kind() && decide("anomaly", kind()),
    back: () => go(at - 1),
    forward: () => go(at + 1),
    undo, blink, enlarge, save,
  };
  const keys = {
    g: "good", d: "defect", u: "unsure", G: "kind-good", D: "kind-defect", ArrowLeft: "back", ArrowRight: "forward",
    Backspace: "undo", b: "blink", e: "enlarge", s: "save",
  };
  for (const [id, act] of Object.entries(actions)) $(id).addEventListener("click", act);
  $("deck").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    if (!event.repeat || event.key.startsWith("Arrow")) actions[keys[event.key]]();
  });
  $("pair").addEventListener("click", (event) => event.target.matches(".slot > img") && enlarge(event));
  $("pair").addEventListener("mousemove", (event) => $("pair").classList.contains("large") && move(event));
  cards.forEach((card, place) => card.querySelector("button").addEventListener("click", () => {
    go(place);
    $("deck").focus();
    $("deck").scrollIntoView();
  }));
  addEventListener("beforeunload", (event) => { if (!kept && !saved) event.preventDefault(); });
  if (deck.length) {
    $("deck").hidden = false;
    $("bar").max = deck.length;
    keep();
    show();
    if (!location.hash) $("deck").focus({ preventScroll: true });
  }
}
