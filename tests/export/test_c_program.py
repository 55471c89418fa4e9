"""Exported C files compile without a warning, anywhere, and touch no memory that is not theirs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl.errors import ExportError
from xlstm_rl.export import export_policy, parity
from xlstm_rl.export.c.compiled import CompiledPolicy
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.kernels.native import compilation
from xlstm_rl.kernels.native.compilation import find_compiler

from .c_cases import ALL
from .c_driver import driver, packed, run
from .conftest import BOX, make_policy
from .test_formats import moved

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
FEW = ("discrete ms", "a tuple of everything", "gru of two layers", "transformer with gates")
FEW += ("mamba2 of odd sizes", "rwkv of odd sizes")
SLOW = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in ALL]


@pytest.fixture
def exported(tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"pattern": "ms"}, {})
    return export_policy(policy, tmp_path / "policy.c", "c")


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", SLOW)
@pytest.mark.few(2)
def test_a_program_under_the_sanitizers_acts_as_the_policy(case, int8, tmp_path):
    policy = moved(make_policy(*ALL[case]))
    path = export_policy(policy, tmp_path / "policy.c", "c", int8=int8)
    compiled = CompiledPolicy(path)
    program, binary = driver(compiled, path), str(tmp_path / "driver")
    run([*find_compiler(), *STRICT, *SANITIZE, str(program), "-o", binary, "-lm"])
    step, rng = ExportedStep(policy), np.random.default_rng(0)
    given, expected = [], []
    policy.observation_space.seed(0)
    for number in range(12):
        inputs = {name: x[0] for name, x in parity._inputs(step, rng, number).items()}
        inputs["reset"] = np.array(number % 5 == 0)
        given.append(packed(compiled, inputs))
        compiled.give(inputs)
        assert compiled.step() == 0
        expected.append((compiled.outputs(), compiled.state.copy()))
    found = run([binary, str(path.with_suffix(".weights"))], b"".join(given))
    at = 0
    for outputs, state in expected:  # the other optimisation rounds otherwise
        for value in [*outputs.values(), state]:
            own = np.frombuffer(found, value.dtype, value.size, at).reshape(value.shape)
            np.testing.assert_allclose(own, value, rtol=1e-3, atol=1e-3)
            at += own.nbytes
    assert at == len(found)


@pytest.mark.parametrize(
    "flags", [("-DXL_PLAIN", "-pedantic", "-O1"), ("-pedantic", "-O2"), ("-O3", "-march=native")]
)
@pytest.mark.few(1)
def test_it_computes_the_same_with_other_vectors(exported, flags):
    """One float at a time, as a compiler without vectors has it; the widest of this machine."""
    strict, other = CompiledPolicy(exported), CompiledPolicy(exported, (*STRICT, *flags))
    for number in range(20):
        inputs = {"obs": np.float32([number, 1, -1]), "reset": np.array(number % 7 == 0)}
        for one in (strict, other):
            one.give(inputs)
            assert one.step() == 0
        np.testing.assert_allclose(other.state, strict.state, rtol=1e-4, atol=1e-5)
        assert other.outputs()["action"] == strict.outputs()["action"]


OTHERS = [one for one in ("gcc", "clang", "tcc", "aarch64-linux-gnu-gcc") if shutil.which(one)]


@pytest.mark.parametrize("compiler", OTHERS)
def test_other_compilers_of_this_machine_take_it(compiler, exported, tmp_path):
    run([compiler, *STRICT, "-O1", "-c", str(exported), "-o", str(tmp_path / "policy.o")])


@pytest.mark.parametrize("language", ["c", "c++"])
def test_a_second_file_sees_the_declarations_alone(language, exported, tmp_path):
    main, compiled = tmp_path / "main.txt", tmp_path / "policy.o"
    main.write_text(
        "#define XLSTM_RL_DECLARATIONS\n"
        '#include "policy.c"\n'
        "int main(void) { return policy_check(policy_description, 3) == 0; }\n"
    )
    binary = str(tmp_path / "main")
    run([*find_compiler(), *STRICT, "-c", str(exported), "-o", str(compiled)])
    flags = STRICT if language == "c" else STRICT[1:]
    own = ["-x", language, str(main), "-x", "none", str(compiled)]
    run([*find_compiler(), *flags, *own, "-o", binary, "-lm"])
    run([binary])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda x: b"", "shorter than its header"),
        (lambda x: b"y" + x[1:], "not a weights file of xlstm_rl"),
        (lambda x: x[:8] + b"\2" + x[9:], "another version of the format"),
        (lambda x: x[:12] + x[12:16][::-1] + x[16:], "another byte order"),
        (lambda x: x[:-16], "another size: it was cut"),
        (lambda x: x + b"more", "another size"),
        (lambda x: x[:-40] + b"\1\2\3\4" + x[-36:], "damaged: its checksum differs"),
    ],
)
def test_a_wrong_weights_file_says_what_is_wrong(harm, says, exported):
    weights = exported.with_suffix(".weights")
    weights.write_bytes(harm(weights.read_bytes()))
    with pytest.raises(ExportError, match=says):
        CompiledPolicy(exported)


def test_weights_of_another_program_are_refused(exported, tmp_path):
    policy = make_policy(BOX, spaces.Discrete(4), {"pattern": "ms"}, {})
    other = export_policy(policy, tmp_path / "other.c", "c")
    exported.with_suffix(".weights").write_bytes(other.with_suffix(".weights").read_bytes())
    with pytest.raises(ExportError, match="written for another program"):
        CompiledPolicy(exported)
    exported.with_suffix(".weights").unlink()
    with pytest.raises(ExportError, match="cannot be opened"):
        CompiledPolicy(exported)


def test_other_weights_of_the_same_network_fit(exported, tmp_path):
    """A policy that was trained on needs no new program."""
    policy = make_policy(BOX, spaces.Discrete(3), {"pattern": "ms"}, {})
    for one in policy.parameters():
        one.data.mul_(0.5)
    trained = export_policy(policy, tmp_path / "trained.c", "c")
    weights = exported.with_suffix(".weights")
    before = weights.read_bytes()
    weights.write_bytes(trained.with_suffix(".weights").read_bytes())
    assert weights.read_bytes() != before
    assert CompiledPolicy(exported).description["c"]["name"] == "policy"


def test_the_state_is_not_read_after_a_reset(exported):
    run_once = CompiledPolicy(exported)
    inputs = {"obs": np.float32([1, 2, 3]), "reset": np.array(True)}
    found = []
    for start in (0.0, np.nan):
        run_once.state[:] = start
        run_once.give(inputs)
        assert run_once.step() == 0
        found.append(run_once.state.copy())
    np.testing.assert_array_equal(*found)


def test_the_file_needs_libc_and_libm_alone(exported, tmp_path):
    library = tmp_path / "policy.o"
    run([*find_compiler(), *STRICT, "-O2", "-c", str(exported), "-o", str(library)])
    names = run(["nm", "-u", str(library)]).decode().split()
    names = {name for name in names if name not in ("U", "w")}
    assert names <= {
        *("_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail", "fclose", "fgetc", "getc", "fopen", "fread"),
        *("memcmp", "memcpy", "memset", "memmove", "sqrtf", "tanhf"),
    }, names
    assert Path(exported).read_text().count("malloc") == 0


def test_the_cells_are_those_of_the_native_backend_word_for_word(tmp_path):
    """What is mended there is mended in what is exported."""
    source = Path(compilation.__file__).parent / "src"
    for pattern, headers in {
        "ms": ("vector.h", "layer_norm.h", "activation.h", "mlstm_step.h", "slstm_cell.h"),
        "gru": ("one_row.h", "recurrent_cell.h"),
    }.items():
        memory = {"kind": "gru"} if pattern == "gru" else {"pattern": pattern}
        policy = make_policy(BOX, spaces.Discrete(3), memory, {})
        text = export_policy(policy, tmp_path / f"{pattern}.c", "c").read_text()
        for header in headers:
            functions = (
                (source / header).read_text("utf-8").split("#include")[-1].partition("\n")[2]
            )
            assert functions.strip() in text, header
        assert '#include "' not in text and "#pragma" not in text
