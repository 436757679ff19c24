/** VitePress's own theme with the reader's fonts, and with tables that scroll in themselves on a narrow screen. */
import theme from "vitepress/theme-without-fonts";
import "./style.css";

export default theme;
