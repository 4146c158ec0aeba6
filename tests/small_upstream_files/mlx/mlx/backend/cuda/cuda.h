#pragma once

namespace mlx::core::cu {

int edition();

} // namespace mlx::core::cu
