/** The page of the dashboard: mounts the application. Everything it shows comes from its own server. */
import "./language.ts";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import { render } from "preact";
import { App } from "./app.tsx";

const root = document.getElementById("app");
if (root) render(<App />, root);
