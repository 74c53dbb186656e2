// The token of an invitation stands in the fragment, which no browser sends. It waits in this tab
// while the person signs in.
const key = "noted-invitation";
if (location.hash.length > 1) {
  sessionStorage.setItem(key, location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem(key);
const button = document.getElementById("accept");
const says = document.getElementById("says");
if (token === null) {
  says.textContent = "This link holds no invitation. Open the link of the invitation itself.";
} else if (button !== null) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await fetch("/v1/invitations/accept", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    const body = await answer.json();
    if (answer.ok) {
      sessionStorage.removeItem(key);
      button.hidden = true;
      says.textContent = `You are in, as ${body.role}.`;
      return;
    }
    button.disabled = false;
    says.textContent = answer.status === 404
      ? "This invitation does not count: it was used or revoked, it has expired, or it is for another e-mail than yours."
      : body.detail;
  });
}
