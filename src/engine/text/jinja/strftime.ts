/**
 * Dates as Python's strftime writes them in the C locale, for chat templates: Intl and the locale of the host would put
 * other names of months into what a model reads. The date has no time zone, as datetime.now() has none.
 */
const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Local time. A directive that is not known here stays as it is, as glibc has it. */
export function strftime(date: Date, format: string): string {
  return format.replace(
    /%([-_0^#]*)(\d*)([EO]?)([A-Za-z%])/g,
    (whole, flags: string, width: string, _, name: string) => {
      const text = directive(date, name);
      if (text === undefined) return whole;
      return flags === "" && width === "" ? text : laidOut(text, flags, Number(width), name);
    },
  );
}

/** Directives whose numbers are filled with spaces. */
const spaced = new Set(["e", "k", "l"]);
/** Directives whose values are written in letters. */
const worded = new Set(["a", "A", "b", "B", "h", "p", "P", "Z", "c", "x", "X", "D", "F", "T", "R", "r", "n", "t", "%"]);

/** The flags of glibc: - for no filling, _ for spaces, 0 for zeros, ^ and # for capitals; and a least width. */
function laidOut(text: string, flags: string, width: number, name: string): string {
  const fillings = flags.replace(/[^-_0]/g, "");
  const filling = fillings.at(-1);
  const upper = flags.includes("^") || (flags.includes("#") && name !== "p" && name !== "Z");
  const cased = upper ? text.toUpperCase() : flags.includes("#") ? text.toLowerCase() : text;
  if (worded.has(name)) return filling === "-" ? cased : cased.padStart(width, filling === "0" ? "0" : " ");
  const digits = cased.replace(/^[0 ]+(?=.)/, "");
  if (filling === "-") return digits;
  const fill = filling === "_" || (filling === undefined && spaced.has(name)) ? " " : "0";
  return digits.padStart(Math.max(width, text.length), fill);
}

function directive(date: Date, name: string): string | undefined {
  const two = (value: number) => String(value).padStart(2, "0");
  const write = (format: string) => strftime(date, format);
  const month = months[date.getMonth()] ?? "";
  const day = days[date.getDay()] ?? "";
  const year = String(date.getFullYear()).padStart(4, "0");
  switch (name) {
    case "Y":
      return year;
    case "y":
      return year.slice(-2);
    case "C":
      return year.slice(0, -2);
    case "m":
      return two(date.getMonth() + 1);
    case "B":
      return month;
    case "b":
    case "h":
      return month.slice(0, 3);
    case "d":
      return two(date.getDate());
    case "e":
      return String(date.getDate()).padStart(2, " ");
    case "j":
      return String(dayOfYear(date) + 1).padStart(3, "0");
    case "A":
      return day;
    case "a":
      return day.slice(0, 3);
    case "w":
      return String(date.getDay());
    case "u":
      return String(date.getDay() || 7);
    case "U":
      return two(Math.floor((dayOfYear(date) + 7 - date.getDay()) / 7));
    case "W":
      return two(Math.floor((dayOfYear(date) + 7 - ((date.getDay() + 6) % 7)) / 7));
    case "G":
      return String(thursdayOf(date).getFullYear()).padStart(4, "0");
    case "V":
      return two(Math.floor(dayOfYear(thursdayOf(date)) / 7) + 1);
    case "H":
      return two(date.getHours());
    case "I":
      return two(date.getHours() % 12 || 12);
    case "k":
      return String(date.getHours()).padStart(2, " ");
    case "l":
      return String(date.getHours() % 12 || 12).padStart(2, " ");
    case "P":
      return date.getHours() < 12 ? "am" : "pm";
    case "s":
      return String(Math.floor(date.getTime() / 1000));
    case "g":
      return String(thursdayOf(date).getFullYear()).padStart(4, "0").slice(-2);
    case "M":
      return two(date.getMinutes());
    case "S":
      return two(date.getSeconds());
    case "f":
      return String(date.getMilliseconds() * 1000).padStart(6, "0");
    case "p":
      return date.getHours() < 12 ? "AM" : "PM";
    case "Z":
    case "z":
      return "";
    case "F":
      return write("%Y-%m-%d");
    case "D":
    case "x":
      return write("%m/%d/%y");
    case "T":
    case "X":
      return write("%H:%M:%S");
    case "R":
      return write("%H:%M");
    case "r":
      return write("%I:%M:%S %p");
    case "c":
      return write("%a %b %e %H:%M:%S %Y");
    case "n":
      return "\n";
    case "t":
      return "\t";
    case "%":
      return "%";
  }
  return undefined;
}

/** The number of the day in its year, from 0 for the first of January. */
function dayOfYear(date: Date): number {
  const midnight = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((midnight - Date.UTC(date.getFullYear(), 0, 1)) / 86_400_000);
}

/** The Thursday of a date's week: its year is the week's year in ISO 8601. */
function thursdayOf(date: Date): Date {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + 4 - (date.getDay() || 7));
}
