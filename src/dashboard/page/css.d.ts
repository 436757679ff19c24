/** Style sheets, which esbuild puts into app.css. */
declare module "*.css";
