import type { Report } from "./report.ts";
export function benchStages(_quick: boolean, _signal: AbortSignal): Promise<Report> {
  throw new Error("x");
}
