// Sorts a table by a column: click its heading, or press Enter on it. Rows without a number stay last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("th[data-sort]").forEach((heading) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[heading.cellIndex].dataset.value ?? "";
      const missing = (text) => text === "" || text === "nan" || text === "<NA>";
      const compare = (a, b) => {
        const [one, two] = [value(a), value(b)];
        if (missing(one) || missing(two)) return missing(one) - missing(two);
        const order = heading.dataset.sort === "text" ? one.localeCompare(two) : Number(one) - Number(two);
        return ascending ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
});

// On paper every section is open.
const folded = () => document.querySelectorAll("main details:not([open])");
addEventListener("beforeprint", () => folded().forEach((part) => part.setAttribute("open", "print")));
addEventListener("afterprint", () =>
  document.querySelectorAll('main details[open="print"]').forEach((part) => part.removeAttribute("open")));
