#include "mlx/array.h"
#include "mlx/backend/metal/metal.h"

namespace mlx::core {

constexpr int edition = 1;

int ops_edition() {
  return edition;
}

std::string marker() {
  return joined(
      {"array.h",
       "array.cpp",
       "io.cpp",
       "ops.cpp",
       "utils.cpp",
       "load.cpp",
       "binary.cpp",
       "quantized.cpp",
       "metal.h",
       "no_metal.cpp",
       "eval.cpp"},
      {ArrayHeader::edition,
       array_edition(),
       io_edition(),
       ops_edition(),
       utils_edition(),
       load_edition(),
       binary_edition(),
       quantized_edition(),
       metal::Header::edition,
       no_metal_edition(),
       gpu_edition()});
}

} // namespace mlx::core
