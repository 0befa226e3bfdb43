// The paths that OpenAPI's document lists, each with a form to try it.

const main = document.querySelector("main");
const api = await (await fetch("/openapi.json")).json();

const resolve = (schema) =>
  schema.$ref ? api.components.schemas[schema.$ref.split("/").at(-1)] : schema;

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  element.append(text, ...children);
  return element;
}

function field(name, input, help = "") {
  return make("label", make("span", name), input, make("small", help));
}

// A row of numbers on a line.
function pretty(value) {
  const rows = /\[\s*(-?[\d.e+-]+(?:,\s*-?[\d.e+-]+)*)\s*\]/g;
  return JSON.stringify(value, null, 1).replace(rows, (_, row) => `[${row.replace(/\s+/g, "")}]`);
}

function inputs({ parameters = [], requestBody }) {
  const fields = parameters.map((parameter) => {
    const input = document.createElement("input");
    input.placeholder = String(parameter.schema.default ?? "");
    input.dataset.in = parameter.in;
    input.name = parameter.name;
    return field(parameter.name, input, parameter.description);
  });
  const content = requestBody?.content ?? {};
  if (content["application/json"]) {
    const input = document.createElement("textarea");
    const { properties } = resolve(content["application/json"].schema);
    const example = Object.entries(properties).map(([name, { examples }]) => [name, examples[0]]);
    input.value = pretty(Object.fromEntries(example));
    input.dataset.in = "body";
    fields.push(field("body", input, "application/json"));
  } else if (requestBody) {
    const input = document.createElement("input");
    input.type = "file";
    input.required = true;
    input.dataset.in = "body";
    fields.push(field("body", input, Object.keys(content).join(", ")));
  }
  return fields;
}

async function send(form, method, path) {
  const query = new URLSearchParams();
  const headers = { accept: "application/json" };
  let body;
  for (const input of form.querySelectorAll("[data-in]")) {
    if (input.dataset.in === "body") {
      body = input.files?.[0] ?? input.value;
      headers["content-type"] = body.type ?? "application/json";
    } else if (input.value) {
      if (input.dataset.in === "query") query.set(input.name, input.value);
      else headers[input.name] = input.value;
    }
  }
  const response = await fetch(query.size ? `${path}?${query}` : path, { method, headers, body });
  const answer = pretty(await response.json());
  return `${response.status} ${response.statusText}\n${answer}`;
}

function section(path, method, operation) {
  const title = make("h2", make("small", method.toUpperCase()), " ", make("code", path));
  const form = make("form", "", ...inputs(operation), make("button", "Try it"));
  const answer = make("pre", "");
  answer.hidden = true;
  answer.tabIndex = 0;
  answer.setAttribute("aria-label", `Answer of ${path}`);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.textContent = await send(form, method.toUpperCase(), path).catch(String);
    answer.hidden = false;
  });
  const codes = Object.entries(operation.responses).flatMap(([code, { description }]) => [
    make("dt", code),
    make("dd", description),
  ]);
  return make("section", title, make("p", operation.description), form, answer, make("dl", "", ...codes));
}

main.append(make("p", api.info.description));
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    main.append(section(path, method, operation));
  }
}
