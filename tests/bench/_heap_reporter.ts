/** Loaded before a script that is measured (`--preload`): on SIGUSR2 it writes what `HeapWatch` reads. */

const libc = Deno.dlopen("libc.so.6", {
  // int fflush(FILE *stream);   NULL: every stream, V8's buffered lines of --trace-gc among them
  fflush: { parameters: ["pointer"], result: "i32" },
});

Deno.addSignalListener("SIGUSR2", () => {
  libc.symbols.fflush(null);
  console.log(`heap used ${Deno.memoryUsage().heapUsed}`);
});
