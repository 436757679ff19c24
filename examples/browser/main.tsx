/** The page: mounts the application. All it shows comes from its own folder and its worker. */
import "../../src/dashboard/page/language.ts";
import "uplot/dist/uPlot.min.css";
import "../../src/dashboard/page/page.css";
import "./browser.css";
import { render } from "preact";
import { App } from "./app.tsx";

const root = document.getElementById("app");
if (root) render(<App />, root);
