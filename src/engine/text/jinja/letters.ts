/**
 * Upper, lower and title case of letters as Python's str has them, where JavaScript has no such method or another
 * rule. The properties of letters are Unicode's.
 */

import { spaces } from "./strings.ts";

const isCased = /\p{Cased}/u;
const someUpper = /\p{Uppercase}/u;
const someLower = /\p{Lowercase}/u;
const someTitle = /\p{Lt}/u;

/** Letters whose form in titles is neither their capital nor made by a rule. */
const titleForms: Readonly<Record<string, string>> = {
  Ǆ: "ǅ",
  ǆ: "ǅ",
  Ǉ: "ǈ",
  ǉ: "ǈ",
  Ǌ: "ǋ",
  ǌ: "ǋ",
  Ǳ: "ǲ",
  ǳ: "ǲ",
  ŉ: "ʼN",
};

const iotaSubscript = "\u0345";
const georgian = /[\u10d0-\u10ff]/;

/** A letter at the beginning of a word: "Ss" for "ß", of which a whole text in capitals has "SS". */
function titleLetter(letter: string): string {
  const form = titleForms[letter];
  if (form !== undefined) return form;
  if (someTitle.test(letter) || georgian.test(letter)) return letter;
  const parts = letter > "\u1f7f" ? letter.normalize("NFD") : letter;
  if (parts.endsWith(iotaSubscript)) {
    const capital = parts.slice(0, -1).toUpperCase().normalize("NFC");
    return capital.length === 1 ? (capital + iotaSubscript).normalize("NFC") : capital + iotaSubscript;
  }
  const [first = "", ...rest] = Array.from(letter.toUpperCase());
  return first + rest.join("").toLowerCase();
}

/** The lower case of each letter of a text: that of a sigma depends on the letters around it. */
function lowerLetters(text: string, letters: readonly string[]): readonly string[] {
  if (!text.includes("Σ")) return letters.map((letter) => letter.toLowerCase());
  // Every other letter becomes the same alone as in the text, so that its length there is known.
  const lower = text.toLowerCase();
  let at = 0;
  return letters.map((letter) => {
    const { length } = letter.toLowerCase();
    at += length;
    return lower.slice(at - length, at);
  });
}

/** str.title */
export function titled(text: string): string {
  const letters = Array.from(text);
  const lower = lowerLetters(text, letters);
  let inWord = false;
  return letters
    .map((letter, i) => {
      const turned = inWord ? (lower[i] ?? "") : titleLetter(letter);
      inWord = isCased.test(letter);
      return turned;
    })
    .join("");
}

/** str.capitalize */
export function capitalized(text: string): string {
  const [first = ""] = text;
  return titleLetter(first) + text.toLowerCase().slice(first.toLowerCase().length);
}

/** str.swapcase */
export function swapped(text: string): string {
  const letters = Array.from(text);
  const lower = lowerLetters(text, letters);
  const swap = (letter: string, i: number) => {
    if (someUpper.test(letter)) return lower[i] ?? "";
    return someLower.test(letter) ? letter.toUpperCase() : letter;
  };
  return letters.map(swap).join("");
}

const cherokee = /\p{Script=Cherokee}/u;

/** str.casefold: letters fold to the lower case of their capital, with exceptions (CaseFolding.txt). */
export function caseFolded(text: string): string {
  return Array.from(text, (letter) => {
    if (letter === "ẞ") return "ss";
    if (letter === "ı" || letter === "İ") return letter.toLowerCase();
    return cherokee.test(letter) ? letter.toUpperCase() : letter.toUpperCase().toLowerCase();
  }).join("");
}

/** str.isupper */
export function isUpper(text: string): boolean {
  return someUpper.test(text) && !someLower.test(text) && !someTitle.test(text);
}

/** str.islower */
export function isLower(text: string): boolean {
  return someLower.test(text) && !someUpper.test(text) && !someTitle.test(text);
}

/** str.istitle */
export function isTitle(text: string): boolean {
  let some = false;
  let inWord = false;
  for (const letter of text) {
    const begins = someUpper.test(letter) || someTitle.test(letter);
    const cased = begins || someLower.test(letter);
    if (cased && begins === inWord) return false;
    inWord = cased;
    some ||= cased;
  }
  return some;
}

const wordBeginnings = new RegExp(`([-${spaces}({\\[<]+)`);

/** The filter title: words begin after white space, hyphens and opening brackets, and nowhere else. */
export function titleCased(text: string): string {
  const words = text.split(wordBeginnings).map((word) => {
    const [first = ""] = word;
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  });
  return words.join("");
}
