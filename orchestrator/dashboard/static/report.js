// The report's page: asks for one, and shows when it is there.
"use strict";
(() => {
  const node = document.getElementById("report");
  let timer = 0;
  async function show() {
    clearTimeout(timer);
    try { node.innerHTML = await JB.getText("/report/part"); } catch (error) { if (!(error instanceof JB.Refusal)) throw error; JB.tell(error.message, true); }
    if (node.querySelector("[data-making='yes']")) timer = setTimeout(show, 1500);
  }
  node.addEventListener("click", async (event) => {
    if (event.target.id !== "make") return;
    event.target.disabled = true;
    try { await JB.post("/api/report", {}); await show(); } catch (error) { if (!(error instanceof JB.Refusal)) throw error; JB.tell(error.message, true); event.target.disabled = false; }
  });
  if (node.dataset.making === "yes") timer = setTimeout(show, 1500);
})();
