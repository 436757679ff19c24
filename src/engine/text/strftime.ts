/**
 * Dates as Python's strftime writes them in the C locale, for chat templates. Not by Intl, since the host's locale would
 * put other names of months into what a model reads.
 */
const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Formats a date in local time. An unknown directive stays as it is. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const month = months[date.getMonth()] ?? "";
  const day = days[date.getDay()] ?? "";
  const year = String(date.getFullYear()).padStart(4, "0");
  const hour12 = date.getHours() % 12 || 12;
  const directives: Readonly<Record<string, string>> = {
    Y: year,
    y: year.slice(-2),
    m: two(date.getMonth() + 1),
    B: month,
    b: month.slice(0, 3),
    d: two(date.getDate()),
    A: day,
    a: day.slice(0, 3),
    H: two(date.getHours()),
    I: two(hour12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    p: date.getHours() < 12 ? "AM" : "PM",
    // Without leading zeros: a glibc extension that some templates use.
    "-d": String(date.getDate()),
    "-m": String(date.getMonth() + 1),
    "-H": String(date.getHours()),
    "-I": String(hour12),
    "%": "%",
  };
  return format.replace(/%(-?[A-Za-z]|%)/g, (whole, name: string) => directives[name] ?? whole);
}
