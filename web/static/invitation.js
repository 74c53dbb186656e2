// The invitation's token is in the fragment, which no browser sends. This tab keeps it while the
// person signs in, then posts it to show what it offers.
const key = "noted-invitation";
if (location.hash.length > 1) {
  sessionStorage.setItem(key, location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem(key);
const look = document.getElementById("look");
const signIn = document.getElementById("sign-in");
if (look !== null && token !== null) {
  sessionStorage.removeItem(key);
  look.elements.token.value = token;
  look.submit();
} else if (token === null && document.querySelector("[name=join], [role=alert]") === null) {
  if (signIn !== null) {
    signIn.hidden = true;
  }
  document.getElementById("says").textContent = "This link holds no invitation. Open the link of the invitation itself.";
}
