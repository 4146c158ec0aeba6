// What is written down, and the types of Metal that stand in the code. Our own.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace stand_in {

struct Launch {
  std::string kernel, function;
  size_t grid[3], group[3]; // the grid in threadgroups
  int buffers;
  int split; // partitions that a reduction after it adds up
  bool reduction;
};

struct Log {
  std::vector<Launch> launches;
  int copies = 0;
};

inline Log log;
inline std::string arch = "applegpu_g16s";
inline bool nax = false;

} // namespace stand_in

namespace NS {
using UInteger = unsigned long;
using Integer = long;
struct String {};
} // namespace NS

namespace MTL {

struct Size {
  Size() = default;
  Size(NS::UInteger x, NS::UInteger y, NS::UInteger z) : width(x), height(y), depth(z) {}
  NS::UInteger width = 0, height = 0, depth = 0;
};

struct ComputePipelineState {
  std::string name, function;
  NS::UInteger maxTotalThreadsPerThreadgroup() const {
    return 1024;
  }
  NS::UInteger threadExecutionWidth() const {
    return 32;
  }
};

struct CommandBuffer {
  template <typename F>
  void addCompletedHandler(F&&) {}
};

enum DataType {
  DataTypeBool,
  DataTypeInt,
  DataTypeUInt,
  DataTypeShort,
  DataTypeUShort,
  DataTypeFloat,
  DataTypeHalf
};

} // namespace MTL
