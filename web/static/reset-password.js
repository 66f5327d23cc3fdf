// The token is in the fragment, which a browser sends to no server and puts into no Referer.
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const form = document.getElementById("reset");
const result = document.getElementById("result");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch("/api/v1/auth/password/reset", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token, new_password: form.querySelector("#password").value }),
    });
    if (answer.status === 204) {
      // Out of the address and the history: it is spent.
      history.replaceState(null, "", location.pathname);
      result.textContent = "The new password is set. Sign in with it.";
      return;
    }
    const problem = await answer.json();
    const faults = (problem.errors ?? []).map((fault) => fault.msg);
    result.textContent = faults.length ? `Not set: ${faults.join("; ")}.` : problem.detail;
  } catch {
    result.textContent = "The server does not answer. Try again.";
  }
  button.disabled = false;
});
