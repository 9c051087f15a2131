"use strict";

// Texts only ever become text (textContent, value) here; markup comes from the server, which escapes every text in it.
const at = (id) => document.getElementById(id);
const KEY = "freeprm-key";
let latest = 0; // of several requests under way, only the last one's answer is shown

async function call(path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  if (answer.status === 401) {
    const given = window.prompt("This server asks for a key:");
    if (given) {
      sessionStorage.setItem(KEY, given);
      return call(path, body);
    }
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

function fill(select, values, chosen) {
  select.replaceChildren(
    ...values.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      option.selected = value === chosen;
      return option;
    }),
  );
}

function addSolution(focus) {
  const number = at("solutions").children.length + 1;
  const label = document.createElement("label");
  const area = document.createElement("textarea");
  label.className = "wide";
  area.rows = 5;
  label.append(`Solution ${number}`, area);
  at("solutions").append(label);
  if (focus) area.focus();
}

async function show(request) {
  const number = ++latest;
  at("failure").textContent = "";
  at("shown").setAttribute("aria-busy", "true");
  try {
    const answer = await request();
    const markup = await answer.text();
    if (number === latest) at("shown").innerHTML = markup;
  } catch (error) {
    if (number === latest) at("failure").textContent = error.message;
  } finally {
    if (number === latest) at("shown").removeAttribute("aria-busy");
  }
}

function threshold() {
  const text = at("threshold").value;
  return text === "" ? null : Number(text);
}

function scoreOwn() {
  const responses = [...at("solutions").querySelectorAll("textarea")].map((area) => area.value);
  show(() =>
    call("view", {
      prompt: at("problem").value,
      responses: responses.filter((text) => text.trim()),
      reward: at("reward").value || null,
      splitter: at("splitter").value || null,
      aggregator: at("aggregator").value || null,
      threshold: threshold(),
    }),
  );
}

function showStored() {
  const wanted = new URLSearchParams({
    run: at("run").value,
    scorer: at("scorer").value,
    problem: at("problem-id").value,
    aggregator: at("aggregator").value,
  });
  if (threshold() !== null) wanted.set("threshold", threshold());
  show(() => call(`runs/view?${wanted}`));
}

async function chooseScorer() {
  const wanted = new URLSearchParams({ run: at("run").value, scorer: at("scorer").value });
  const problems = await (await call(`runs/problems?${wanted}`)).json();
  fill(at("problem-id"), problems.map(({ id, text }) => [id, text]));
  showStored();
}

function chooseRun(runs) {
  const run = runs.find(({ name }) => name === at("run").value);
  fill(at("scorer"), run.scorers.map((name) => [name, name]));
  return chooseScorer();
}

async function start() {
  addSolution(false);
  addSolution(false);
  for (;;) {
    const ready = await fetch("ready");
    if (ready.ok) break;
    const said = await ready.json().catch(() => null);
    at("about").textContent = said?.error?.message ?? "The server does not answer.";
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  const spec = await (await call("spec")).json();
  at("about").textContent = `${spec.model} · ${spec.scorer} · scores are ${spec.kind ?? "of unknown kind"}`;
  fill(at("reward"), spec.choices.rewards.map((name) => [name, name]), spec.rewards[0]);
  fill(at("splitter"), spec.choices.splitters.map((name) => [name, name]), spec.splitter);
  fill(at("aggregator"), spec.choices.aggregators.map((name) => [name, name]), spec.aggregator);
  for (const id of ["reward", "splitter", "aggregator"]) at(id).parentElement.hidden = !at(id).options.length;
  at("threshold").value = spec.kind === "probability" ? "0.5" : "0";
  const runs = await (await call("runs")).json();
  if (runs.length) {
    at("stored").hidden = false;
    fill(at("run"), runs.map(({ name }) => [name, name]));
    at("run").addEventListener("change", () => chooseRun(runs).catch(fail));
    at("scorer").addEventListener("change", () => chooseScorer().catch(fail));
    at("problem-id").addEventListener("change", showStored);
    await chooseRun(runs);
  }
}

function fail(error) {
  at("failure").textContent = error.message;
}

at("add").addEventListener("click", () => addSolution(true));
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  scoreOwn();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
start().catch(fail);
