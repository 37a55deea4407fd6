(function () {
  "use strict";
  var data = document.documentElement.dataset;
  var made = Number(data.made) * 1000, old = Number(data.oldAfter) * 1000;

  function inWords(ms) {
    var minutes = Math.floor(Math.abs(ms) / 60000);
    if (minutes < 120) { return minutes + " min"; }
    return minutes < 2880 ? Math.floor(minutes / 60) + " h" : Math.floor(minutes / 1440) + " d";
  }

  function update() {
    var age = Date.now() - made;
    var isOld = Math.abs(age) > old;
    document.getElementById("age").textContent =
      age < -60000 ? " (" + inWords(age) + " ahead of this computer's clock)"
                   : " (" + inWords(age) + " ago)";
    document.getElementById("old").hidden = !isOld;
    document.documentElement.className = isOld ? "old" : "";
  }

  update();
  setInterval(update, 20000);
  document.addEventListener("visibilitychange", update);
})();
