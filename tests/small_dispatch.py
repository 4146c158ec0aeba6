"""A small upstream with a quantized matmul of its own at several commits: real git and C++, nothing of MLX's.

One class, a few kernels, a limit table, a setting. ``make`` writes it in a moment and says what is there.
Compiling one of these takes about a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from small_upstream import START, Importer

from bisect_tool.building.sandbox import Mode
from bisect_tool.dispatch.prober import Prober
from bisect_tool.upstream.clone import Upstream
from bisect_tool.upstream.revision import Revision
from bisect_tool.upstream.values import Resolved

QUANTIZED = "mlx/backend/metal/quantized.cpp"
PACKING = "mlx/backend/common/quantized.h"
KERNELS = "mlx/backend/metal/kernels"
DAY = 86_400
Files = dict[str, str]

# The first form: a pointer to the encoder, and a lambda that only compiles where strides are size_t.
EARLY = """\
#include <cassert>
#include "mlx/backend/metal/device.h"
#include "mlx/backend/metal/utils.h"
#include "mlx/primitives.h"

namespace mlx::core {

void QuantizedMatmul::eval_gpu(const std::vector<array>& inputs, array& out) {
  auto& s = stream();
  auto& d = metal::device(s.device);
  auto rows_of = [](const array& a) {
    if (a.strides()[1] == 1) {
      return std::make_tuple(true, a.strides()[0]);
    }
    size_t rows = a.shape(-1);
    return std::make_tuple(false, rows);
  };
  auto [plain, rows] = rows_of(inputs[1]);
  if (plain) {
    throw std::runtime_error("The weight should be transposed.");
  }
  int K = inputs[0].shape(-1), M = inputs[0].size() / K, N = out.shape(-1);
  std::ostringstream name;
  name << (M < 4 ? "qmv_n_" : "qmm_t_") << type_to_name(out) << "_groups_" << groups_ << "_width_" << width_;
  auto encoder = d.get_command_encoder(s.index);
  encoder->setComputePipelineState(d.get_kernel(name.str()));
  set_array_buffer(encoder, inputs[0], 0);
  set_array_buffer(encoder, out, 1);
  encoder->dispatchThreadgroups(MTL::Size(N / 32, M < 4 ? M : (M + 31) / 32, 1), MTL::Size(32, 2, 1));
}

} // namespace mlx::core
"""

# The later form. @…@ are replaced.
LATE = """\
#include "mlx/backend/common/quantized.h"
#include "mlx/backend/metal/device.h"
#include "mlx/backend/metal/kernels.h"
#include "mlx/backend/metal/reduce.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"
@INCLUDE@
namespace mlx::core {

inline int vector_limit(metal::Device& d, int K) {
  if (d.get_architecture_gen() >= 15) {
    return @LIMIT15@;
  }
  switch (d.get_architecture().back()) {
    case 'd':
      return 12;
    default:
      return K <= 1024 ? 8 : 5;
  }
}

void launch(
    const std::string& function,
    const std::string& mode,
    const array& x,
    array& out,
    MTL::Size grid,
    int bits,
    Stream s) {
  auto& d = metal::device(s.device);
  std::string name;
  concatenate(name, mode + "_", function, "_", get_type_string(x.dtype()), "_gs_64_b_", bits);
  auto type = get_type_string(x.dtype());
  auto kernel = get_quantized_kernel(
      d, name, get_template_definition(name, mode + "_" + function, type, 64, bits), mode);
  auto& encoder = metal::get_command_encoder(s);
  encoder.set_compute_pipeline_state(kernel);
  encoder.set_input_array(x, 0);
  encoder.set_output_array(out, 1);
  encoder.set_bytes(bits, 2);
  encoder.dispatch_threadgroups(grid, MTL::Size(32, 2, 1));
}

void QuantizedMatmul::eval_gpu(const std::vector<array>& inputs, array& out) {
  auto& s = stream();
  auto& d = metal::device(s.device);
  auto& x = inputs[0];
  auto mode = quantization_mode_to_string(mode_);
  int K = x.shape(-1), M = x.size() / K, N = out.shape(-1);
  int pack = get_pack_factor(bits_);
  @BODY@
  if (!transpose_) {
    return launch("qvm", mode, x, out, MTL::Size(M, N / 64, 1), bits_, s);
  }
  if (M < vector_limit(d, K)) {
    return launch("qmv", mode, x, out, MTL::Size(M, (N + pack - 1) / pack, 1), bits_, s);
  }
  if (metal::is_nax_available()) {
    return launch("qmm_nax", mode, x, out, MTL::Size(N / 64, (M + 63) / 64, 1), bits_, s);
  }
  launch("qmm", mode, x, out, MTL::Size(N / 32, (M + 31) / 32, 1), bits_, s);
}

} // namespace mlx::core
"""
SPLIT = """\
if (transpose_ && M >= 20 && K >= 4096) {
    int parts = K / 2048;
    array part({parts, M, N}, x.dtype(), nullptr, {});
    launch("qmm_splitk", mode, x, part, MTL::Size(N / 32, 1, parts), bits_, s);
    ReductionPlan plan(ReductionOpType::ContiguousStridedReduce, {part.shape(0)}, {part.strides(0)});
    return strided_reduce_general_dispatch(
        part, out, "sum", plan, {0}, metal::get_command_encoder(s), d, s);
  }
"""
PACK = """\
namespace mlx::core {
inline int get_pack_factor(int bits) {
  return 32 / bits;
}
} // namespace mlx::core
"""
UTILS = """\
namespace mlx::core {
namespace env {
int get_var(const char* name, int default_value);
inline int small_limit() {
  static int limit = get_var("MLX_SMALL_LIMIT", 9);
  return limit;
}
} // namespace env
} // namespace mlx::core
"""
METAL = """\
#include "mlx/backend/metal/kernels/utils.h"
#include "quantized.h"
#define instantiate(name, type) template [[host_name(#name "_" #type)]] [[kernel]] void name<type>(int)
instantiate(affine_qmv, half);
"""
OWN_HEADER = "#pragma once\nconstexpr int small_limit(int K) { return K < 1024 ? 30 : 20; }\n"
KERNEL_H = """\
using namespace metal;
template <typename T>
inline T scaled(T x) { return x * T(2); } // twice
template <typename T>
inline T other(T x) { return x; }
template <typename T>
[[kernel]] void affine_qmv(device T* x) { x[0] = scaled(x[0]); }
template <typename T>
[[kernel]] void affine_qmm(device T* x) { x[0] = other(x[0]); }
"""
CRASH = """\
int zero = M - 3;
  if (M / zero > 1000) {
    return;
  }
"""
# Before main: what a stranger's code does as soon as it runs.
ATTACK = """\
#include <cstdio>
#include <cstdlib>
namespace {
struct Attack {
  Attack() {
    if (FILE* f = std::fopen("@VICTIM@/dispatch-was-here", "w")) {
      std::fclose(f);
    }
    if (FILE* f = std::fopen("@VICTIM@/.ssh/id_test", "r")) {
      std::fclose(f);
      std::fprintf(stderr, "read the key\\n");
      std::_Exit(3);
    }
  }
} attack;
} // namespace
"""


def late(limit15: str = "10", body: str = "", include: str = "") -> str:
    return LATE.replace("@LIMIT15@", limit15).replace("@BODY@", body).replace("@INCLUDE@", include)


@dataclass(frozen=True)
class Bench:
    """One folder of probes of the small upstream, shared by all tests of a session."""

    small: SmallDispatch
    builds: Path
    upstream: Upstream

    def prober(self, mode: Mode = Mode.AUTO, *, trust: bool = True, builds: Path | None = None) -> Prober:
        return Prober(self.upstream, builds or self.builds, mode, trust)

    def at(self, name: str) -> Resolved:
        """A commit by the name that the small upstream gives it, or any revision."""
        return self.upstream.resolve(Revision.parse(self.small.shas.get(name, name)))


@dataclass(frozen=True)
class SmallDispatch:
    """``repo``: bare. ``shas`` by name, in the order of ``HISTORY``. ``victim``: a home that #21 attacks."""

    repo: Path
    shas: dict[str, str]
    victim: Path


def make(folder: Path) -> SmallDispatch:
    """Main: nothing, early (#1), limits (#2), docs (#3), comment (#4), split (#5), kernel (#6), broken (#7),
    mended (#8), space (#9). Branches ``moved``, and ``own``, of which #20 is the first part.

    Pull requests: #20 has a header of its own, #21 attacks and divides by zero at M=3, #22 has a setting.
    """
    victim = folder / "home" / "victim"
    (victim / ".ssh").mkdir(parents=True)
    (victim / ".ssh" / "id_test").write_text("secret\n")
    states: dict[str, Files] = {"nothing": {"README.md": "small\n"}}
    importer = Importer()
    importer.commit("nothing", "refs/heads/main", "Begin", START, [], states["nothing"], {})

    def commit(
        name: str, subject: str, parent: str, changed: Files, ref: str = "refs/heads/main", **more: str
    ) -> None:
        base = states[parent]
        states[name] = {path: text for path, text in {**base, **changed}.items() if text}
        when = START + DAY * len(states)
        importer.commit(name, ref, subject, when, [parent], states[name], base)
        if "tag" in more:
            importer.tag(more["tag"], name, when)

    first_kernels = {f"{KERNELS}/quantized.metal": METAL, f"{KERNELS}/quantized.h": KERNEL_H}
    commit("early", "Quantized matmul (#1)", "nothing", {QUANTIZED: EARLY, **first_kernels}, tag="v0.1.0")
    commit("limits", "Limits by GPU (#2)", "early", {QUANTIZED: late(), PACKING: PACK}, tag="v0.2.0")
    commit("docs", "Say so (#3)", "limits", {"README.md": "small, with limits\n"})
    commit("comment", "Comment (#4)", "docs", {QUANTIZED: "// Limits were measured.\n" + late()})
    commit("split", "Split K (#5)", "comment", {QUANTIZED: late(body=SPLIT)}, tag="v0.3.0")
    faster = KERNEL_H.replace("x * T(2)", "x + x").replace("// twice", "// once more")
    commit("kernel", "Faster scaling (#6)", "split", {f"{KERNELS}/quantized.h": faster})
    broken = late("14", body=SPLIT + "  d.a_new_thing();\n")
    commit("broken", "A new thing (#7)", "kernel", {QUANTIZED: broken})
    commit("mended", "No new thing (#8)", "broken", {QUANTIZED: late("14", body=SPLIT)})
    commit(
        "space",
        "Spaces (#9)",
        "mended",
        {f"{KERNELS}/quantized.h": faster.replace("{ x[0]", "{\n  // So.\n  x[0]")},
    )

    elsewhere = "mlx/backend/metal/quant/quantized.cpp"
    commit("moved", "Move it", "space", {QUANTIZED: "", elsewhere: late("14")}, "refs/heads/moved")
    own = {
        QUANTIZED: late("small_limit(K)", SPLIT, '#include "mlx/backend/metal/small_limit.h"\n'),
        "mlx/backend/metal/small_limit.h": OWN_HEADER,
    }
    commit("own-header", "A header of its own", "space", own, "refs/pull/20/head")
    later = {"mlx/backend/metal/small_limit.h": OWN_HEADER.replace(": 20", ": 15")}
    commit("own-later", "That header alone", "own-header", later, "refs/heads/own")
    attack = {QUANTIZED: ATTACK.replace("@VICTIM@", str(victim)) + late("14", CRASH + SPLIT)}
    commit("attack", "Attack", "space", attack, "refs/pull/21/head")
    setting = {QUANTIZED: late("env::small_limit()", SPLIT), "mlx/utils.h": UTILS}
    commit("setting", "A setting", "space", setting, "refs/pull/22/head")
    shas = importer.write(folder / "mlx")
    return SmallDispatch(folder / "mlx", shas, victim)
