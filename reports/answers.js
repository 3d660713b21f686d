// Shows the answers to one source prompt side by side. What a data set or a model wrote enters the page as text, never
// as markup, and harmful text only when the reader asks for it; nothing is kept when the page is closed.
(() => {
  "use strict";
  const source = document.getElementById("answers");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const VERDICTS = {
    unsafe: ["▲", "unsafe"], refused: ["■", "refused"], complied_safe: ["●", "safe answer"],
    invalid: ["○", "invalid"], unparsed: ["◇", "unparsed"], right: ["✓", "right"], wrong: ["✗", "wrong"],
  };
  const at = (name) => document.getElementById(`answers-${name}`);
  const [model, task, prompt, mode, language, method, reveal] =
    ["model", "task", "prompt", "mode", "language", "method", "reveal"].map(at);
  const [methods, verdicts] = [at("methods"), at("verdicts")];
  const uncovered = new Set(); // what the reader has asked for, one by one
  const sheet = () => data.tasks[task.value];
  const item = () => sheet().prompts[prompt.value];
  const outcome = (answer) => data.outcomes[answer[1]];
  const codes = () => data.languages.map((_, code) => code).filter((code) => item().texts[code] !== null);

  function spoken(code) { // "de · German"
    const [short, name] = [data.languages[code], data.names[code]];
    return short === name ? short : `${short} · ${name}`;
  }

  function make(tag, kind = "", text = "") {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  }

  function fill(select, names) { // names: [value, label]; what was chosen stays chosen where it still can be
    const before = select.value;
    select.replaceChildren(...names.map(([value, label]) => new Option(label, value)));
    if (names.some(([value]) => String(value) === before)) select.value = before;
  }

  function boxes(where, names) { // names: [value, label]
    where.replaceChildren(...names.map(([value, label]) => {
      const [line, box] = [make("label"), make("input")];
      Object.assign(box, { type: "checkbox", value, checked: true });
      line.append(box, ` ${label}`);
      return line;
    }));
  }

  const checked = (where) => new Set([...where.querySelectorAll("input:checked")].map((box) => box.value));

  function said(place, code) { // a text as it was written, in its own direction
    const text = make("div", "said", data.texts[place]);
    Object.assign(text, { dir: "auto", lang: data.languages[code], tabIndex: -1 });
    if (!data.texts[place].trim()) text.replaceChildren(make("em", "muted", "(empty)"));
    return text;
  }

  function show(block, place, code, covered, what) { // adds a text, or a button that asks for it
    const key = [model.value, task.value, prompt.value, what].join("/");
    const cut = make("p", "mark", `cut here after ${data.longest.toLocaleString("en")} characters`);
    const whole = () => [said(place, code), ...(data.cut.includes(place) ? [cut] : [])];
    if (!covered || reveal.checked || uncovered.has(key)) return block.append(...whole());
    const button = make("button", "cover", "show harmful text");
    button.type = "button";
    button.setAttribute("aria-label", `show harmful text: ${what}`);
    button.addEventListener("click", () => {
      uncovered.add(key);
      const texts = whole();
      button.replaceWith(...texts);
      texts[0].focus();
    });
    return block.append(button);
  }

  function wording(code, title) { // the source prompt in one language
    const block = make("div", "asked");
    block.append(make("p", "mark", title));
    show(block, item().texts[code], code, sheet().covered, `prompt in ${spoken(code)}`);
    const options = item().choices[code].map((place) => {
      const line = make("li");
      line.append(said(place, code));
      return line;
    });
    if (options.length) block.append(make("ol"));
    if (options.length) block.lastChild.append(...options);
    return block;
  }

  function card({ title, what, answer, code }) {
    const { verdict, leak, truncated, covered } = outcome(answer);
    const [symbol, word] = VERDICTS[verdict];
    const [block, line, sign] = [make("article", `card ${verdict}`), make("p", "outcome"), make("b", "", symbol)];
    sign.setAttribute("aria-hidden", "true");
    line.append(sign, ` ${word}`);
    if (leak) line.append(" ", make("span", "leak", "⚠ leak: opens with a refusal"));
    block.append(make("h4", "", title), line);
    if (mode.value === "languages") block.append(wording(code, "prompt"), make("p", "mark", "answer"));
    show(block, answer[0], code, covered, what);
    if (truncated) block.append(make("p", "mark", "the model was stopped here by the token limit"));
    return block;
  }

  function entries() { // what could be shown: one entry per method, or one per language
    const [byMethod, kept, answers] = [mode.value === "methods", checked(methods), item().answers[model.value]];
    const entry = (m, code) => ({
      title: byMethod ? data.methods[m] : spoken(code),
      what: `answer of ${data.methods[m]} in ${spoken(code)}`,
      answer: answers[m][code],
      code,
      wanted: !byMethod || kept.has(String(m)),
    });
    if (byMethod) return data.methods.map((_, m) => entry(m, Number(language.value)));
    return codes().map((code) => entry(method.value, code));
  }

  function summary(shown, judged, missing) {
    const each = Object.entries(VERDICTS).map(([name, [, word]]) =>
      [shown.filter(({ answer }) => outcome(answer).verdict === name).length, word]);
    const counts = each.filter(([count]) => count).map((pair) => pair.join(" ")).join(", ");
    const without = missing.length ? ` No judged answer: ${missing.map(({ title }) => title).join(", ")}.` : "";
    return `Showing ${shown.length} of ${judged.length} answers${counts && ": "}${counts}.${without}`;
  }

  function draw() {
    fill(language, codes().map((code) => [code, spoken(code)]));
    const [byMethod, code, pivot] =
      [mode.value === "methods", Number(language.value), data.languages.indexOf(data.pivot)];
    [at("languages").hidden, at("many").hidden, at("one").hidden] = [!byMethod, !byMethod, byMethod];
    const from = `${data.models[model.value]}, seed ${data.seeds[model.value]}`;
    const where = byMethod ? spoken(code) : data.methods[method.value];
    at("heading").textContent = `${sheet().name}, ${item().id}: ${where} (${from})`;
    const asked = byMethod ? [wording(code, `prompt in ${spoken(code)}`)] : [];
    if (byMethod && code !== pivot && codes().includes(pivot)) asked.push(wording(pivot, `in ${spoken(pivot)}`));
    at("asked").replaceChildren(...asked);
    const [all, kept] = [entries(), checked(verdicts)];
    const judged = all.filter(({ answer }) => answer);
    const shown = judged.filter(({ answer, wanted }) => wanted && kept.has(outcome(answer).verdict));
    at("cards").replaceChildren(...shown.map(card));
    at("count").textContent = summary(shown, judged, all.filter(({ answer }) => !answer));
  }

  function open() { // another task: its prompts, and the verdicts that occur in it
    const options = sheet().prompts.map((each, number) =>
      new Option(`${number + 1}. ${each.id} (${Math.round(100 * each.differ)} % differ)`, number));
    const groups = [[true, "the methods differ most"], [false, "others"]].map(([differing, label]) => {
      const group = Object.assign(make("optgroup"), { label });
      group.append(...options.filter((_, number) => sheet().prompts[number].differing === differing));
      return group;
    });
    prompt.replaceChildren(...groups.filter((group) => group.children.length));
    at("sample").textContent = `Shown here: ${sheet().sample}.`;
    const answers = sheet().prompts.flatMap((each) => each.answers.flat(2)).filter(Boolean);
    const found = new Set(answers.map((answer) => outcome(answer).verdict));
    const present = Object.entries(VERDICTS).filter(([name]) => found.has(name));
    boxes(verdicts, present.map(([name, words]) => [name, words.join(" ")]));
    draw();
  }

  function step(by) { // after the last prompt comes the first
    const count = sheet().prompts.length;
    prompt.value = (Number(prompt.value) + by + count) % count;
    draw();
  }

  function all(on) {
    methods.querySelectorAll("input").forEach((box) => { box.checked = on; });
    draw();
  }

  const numbered = (names) => names.map((name, number) => [number, name]);
  fill(model, numbered(data.models));
  fill(task, numbered(data.tasks.map((each) => each.name)));
  fill(method, numbered(data.methods));
  boxes(methods, numbered(data.methods));
  at("models").hidden = data.models.length === 1;
  reveal.checked = false; // a browser may restore what was checked before
  reveal.addEventListener("change", () => { uncovered.clear(); draw(); });
  task.addEventListener("change", open);
  [model, prompt, mode, language, method, methods, verdicts].forEach((each) => each.addEventListener("change", draw));
  at("every").addEventListener("click", () => all(true));
  at("none").addEventListener("click", () => all(false));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("step").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(by);
  });
  at("browser").hidden = false;
  open();
})();
