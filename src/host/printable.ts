/** Text of a guest without what would command a terminal: escape sequences and control characters other than tabs and line feeds. */
export function printable(text: string): string {
  return text.replaceAll(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
}
