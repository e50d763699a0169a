// A login link has the token behind the # of its address: no server, proxy or log on the way sees that part.
"use strict";

function logIn() {
  const token = decodeURIComponent(location.hash.slice(1));
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = token;
  document.getElementById("login").submit();
}

logIn();
// The link may be pasted where this page is open already.
window.addEventListener("hashchange", logIn);
