"""A program of C around an exported policy: steps come in, results go out."""

import subprocess
from pathlib import Path

import numpy as np

from xlstm_rl.export.c.compiled import CompiledPolicy

_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "{file}"

int main(int count, char **arguments) {{
  static float state[{upper}_STATE];
  float *work = malloc({upper}_WORK * sizeof(float));
  void *weights = malloc({upper}_BYTES);
  const char *wrong = count > 1 ? {name}_weights(arguments[1], weights) : "no file";
  if (wrong) {{
    fprintf(stderr, "%s\\n", wrong);
    return 2;
  }}
  for (;;) {{
    {name}_inputs in;
    {name}_outputs out;
    unsigned char reset;
    if (fread(&reset, 1, 1, stdin) != 1) break;
    in.reset = reset;
{declarations}
{reads}
    if ({name}_step(weights, &in, state, &out, work)) return 3;
{writes}
    fwrite(state, sizeof state, 1, stdout);
  }}
  free(work);
  free(weights);
  return 0;
}}
"""


def driver(policy: CompiledPolicy, path: Path) -> Path:
    """Write the program beside the C file and return it."""
    own = policy.description["c"]
    shapes = {port["name"]: port["shape"][1:] for port in policy.description["inputs"]}
    declarations, reads = [], []
    for field, kind, port in own["inputs"]:
        if port == "reset":
            continue
        if port == "reward":
            reads.append("if (fread(&in.reward, 4, 1, stdin) != 1) return 4;")
            continue
        size = int(np.prod(shapes[port]))  # of its own size, so that a look past it is noticed
        declarations.append(f"{kind} *own_{field} = malloc({size} * sizeof({kind}));")
        reads.append(f"if (fread(own_{field}, sizeof({kind}), {size}, stdin) != {size}) return 4;")
        reads.append(f"in.{field} = own_{field};")
    writes = [
        f"fwrite(&out.{field}, sizeof out.{field}, 1, stdout);" for field, *_ in own["outputs"]
    ]
    writes += [f"free(own_{line.split('*own_')[1].split(' ')[0]});" for line in declarations]
    program = path.with_name("driver.c")
    parts = {"declarations": declarations, "reads": reads, "writes": writes}
    text = {name: "\n".join("    " + line for line in lines) for name, lines in parts.items()}
    program.write_text(
        _MAIN.format(file=path.name, name=own["name"], upper=own["name"].upper(), **text)
    )
    return program


def packed(policy: CompiledPolicy, inputs: dict[str, np.ndarray]) -> bytes:
    """Return one step's inputs as the program reads them."""
    own = policy.description["c"]["inputs"]
    parts = [bytes([bool(inputs["reset"])])]
    parts += [np.ascontiguousarray(inputs[p]).tobytes() for _, _, p in own if p != "reset"]
    return b"".join(parts)


def run(command: list[str], given: bytes = b"") -> bytes:
    """Run a command and return what it wrote; fail with what it said."""
    done = subprocess.run(command, input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
