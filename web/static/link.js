// A button with data-link starts linking that provider's sign-in to the account.
for (const button of document.querySelectorAll("[data-link]")) {
  button.addEventListener("click", async () => {
    const answer = await fetch("/v1/me/identities", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ provider: button.dataset.link }),
    });
    const body = await answer.json();
    if (answer.ok) {
      location.assign(body.url);
      return;
    }
    document.getElementById("link-error").textContent = body.detail;
  });
}
