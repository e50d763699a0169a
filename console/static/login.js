// A login link has the token behind the # of its address: no server, proxy or log on the way sees that part.
"use strict";
const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = token;
  document.getElementById("login").submit();
}
