/**
 * Keeps zod from making code of text, which the page's content security policy forbids; imported before all that makes
 * schemas.
 */
import * as z from "zod";

z.config({ jitless: true });
