// A click on a picture shows it as large as the window allows; Escape or another click closes it.
"use strict";
{
  const box = document.createElement("dialog"), large = new Image(), said = document.createElement("p");
  const close = document.createElement("button");
  box.className = "enlarged";
  box.setAttribute("aria-label", "Enlarged picture");
  close.type = "button";
  close.textContent = "Close";
  box.append(close, large, said);
  document.body.append(box);
  box.addEventListener("click", () => box.close());
  for (const picture of document.querySelectorAll("main img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.setAttribute("aria-label", "Enlarge " + picture.alt);
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => {
      large.src = picture.src;
      large.alt = said.textContent = picture.alt;
      box.showModal();
    });
  }
}
