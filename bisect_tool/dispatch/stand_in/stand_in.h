// A stand-in for the headers that MLX's quantized.cpp includes: just enough for its host code to compile and
// to run to the point where it would launch a kernel, which is written down instead. Arrays have a shape,
// strides and flags and no data; the device is a string. Our own; nothing in here is MLX's.
//
// STAND_IN_STRIDE: the type of one stride, which changed once (before: size_t).
// STAND_IN_ENV: a file with the commit's own functions of the namespace env, in place of ours;
// STAND_IN_OWN_GET_VAR: get_var is among them.
#pragma once

#include <algorithm>
#include <cassert>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#ifndef STAND_IN_STRIDE
#define STAND_IN_STRIDE int64_t
#endif

// The neural accelerator's condition is the query's, not the system's.
#define __builtin_available(...) true
#ifndef MLX_ENABLE_NAX
#define MLX_ENABLE_NAX 1
#endif

// ---- what is written down ----------------------------------------------------------------------------------

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

// ---- Metal -------------------------------------------------------------------------------------------------

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

// ---- arrays ------------------------------------------------------------------------------------------------

namespace mlx::core {

using namespace std::string_literals;

struct Dtype {
  enum class Val { bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, float32, bfloat16 };
  Val value;
  uint8_t bytes;
  constexpr operator Val() const {
    return value;
  }
  constexpr uint8_t size() const {
    return bytes;
  }
  constexpr Val val() const {
    return value;
  }
};
inline constexpr bool operator==(const Dtype& a, const Dtype& b) {
  return a.value == b.value;
}
inline constexpr bool operator!=(const Dtype& a, const Dtype& b) {
  return a.value != b.value;
}
inline constexpr Dtype bool_{Dtype::Val::bool_, 1}, uint8{Dtype::Val::uint8, 1}, uint16{Dtype::Val::uint16, 2},
    uint32{Dtype::Val::uint32, 4}, uint64{Dtype::Val::uint64, 8}, int8{Dtype::Val::int8, 1},
    int16{Dtype::Val::int16, 2}, int32{Dtype::Val::int32, 4}, int64{Dtype::Val::int64, 8},
    float16{Dtype::Val::float16, 2}, float32{Dtype::Val::float32, 4}, bfloat16{Dtype::Val::bfloat16, 2};

inline size_t size_of(const Dtype& t) {
  return t.bytes;
}
inline std::string plain_name(const Dtype& t) {
  switch (t.value) {
    case Dtype::Val::bool_: return "bool_";
    case Dtype::Val::uint8: return "uint8";
    case Dtype::Val::uint16: return "uint16";
    case Dtype::Val::uint32: return "uint32";
    case Dtype::Val::uint64: return "uint64";
    case Dtype::Val::int8: return "int8";
    case Dtype::Val::int16: return "int16";
    case Dtype::Val::int32: return "int32";
    case Dtype::Val::int64: return "int64";
    case Dtype::Val::float16: return "float16";
    case Dtype::Val::float32: return "float32";
    case Dtype::Val::bfloat16: return "bfloat16";
  }
  return "";
}
// The name of a type in Metal's own language.
inline std::string get_type_string(const Dtype& t) {
  if (t == float32) {
    return "float";
  }
  return t == bool_ ? "bool" : plain_name(t) + "_t";
}

struct Device {
  enum class DeviceType { cpu, gpu };
  static constexpr DeviceType cpu = DeviceType::cpu, gpu = DeviceType::gpu;
  DeviceType type = DeviceType::gpu;
  int index = 0;
};
struct Stream {
  int index = 0;
  Device device{};
};
inline Stream default_stream(Device) {
  return {};
}

using ShapeElem = int32_t;
using Shape = std::vector<int32_t>;
using StrideElem = STAND_IN_STRIDE;
using Strides = std::vector<StrideElem>;

namespace allocator {
struct Buffer {
  size_t bytes = 0;
  void* ptr() const {
    return nullptr;
  }
  void* raw_ptr() const {
    return nullptr;
  }
};
inline Buffer malloc(size_t bytes) {
  return {bytes};
}
inline Buffer malloc_or_wait(size_t bytes) {
  return {bytes};
}
inline void free(Buffer) {}
} // namespace allocator

class Primitive;

class array {
 public:
  struct Flags {
    bool contiguous = true, row_contiguous = true, col_contiguous = false;
  };
  struct Data {};

  array(Shape shape, Dtype dtype, std::shared_ptr<Primitive> = nullptr, std::vector<array> = {})
      : is_(std::make_shared<Is>(std::move(shape), dtype)) {}
  array(std::initializer_list<int> shape, Dtype dtype, std::nullptr_t, std::vector<array> = {})
      : array(Shape(shape), dtype) {}
  array(allocator::Buffer, Shape shape, Dtype dtype) : array(std::move(shape), dtype) {}
  explicit array(float, Dtype dtype = float32) : array(Shape{}, dtype) {}

  // The same elements seen through other strides.
  array view(Shape shape, Strides strides) const {
    array seen(std::move(shape), dtype());
    seen.is_->strides = std::move(strides);
    seen.is_->flags = {true, false, true};
    return seen;
  }

  size_t ndim() const {
    return is_->shape.size();
  }
  const Shape& shape() const {
    return is_->shape;
  }
  int shape(int axis) const {
    return is_->shape.at(axis < 0 ? axis + static_cast<int>(ndim()) : axis);
  }
  const Strides& strides() const {
    return is_->strides;
  }
  StrideElem strides(int axis) const {
    return is_->strides.at(axis < 0 ? axis + static_cast<int>(ndim()) : axis);
  }
  size_t size() const {
    return std::accumulate(is_->shape.begin(), is_->shape.end(), size_t(1), std::multiplies<size_t>());
  }
  size_t data_size() const {
    return size();
  }
  size_t itemsize() const {
    return is_->dtype.bytes;
  }
  size_t nbytes() const {
    return size() * itemsize();
  }
  size_t buffer_size() const {
    return nbytes();
  }
  Dtype dtype() const {
    return is_->dtype;
  }
  const Flags& flags() const {
    return is_->flags;
  }
  bool is_donatable() const {
    return false;
  }
  int64_t offset() const {
    return 0;
  }
  std::shared_ptr<Data> data_shared_ptr() const {
    return nullptr;
  }
  uintptr_t id() const {
    return reinterpret_cast<uintptr_t>(is_.get());
  }
  template <typename... Args>
  void set_data(const Args&...) {}
  template <typename... Args>
  void copy_shared_buffer(const Args&...) {}

 private:
  struct Is {
    Is(Shape given, Dtype type) : shape(std::move(given)), strides(shape.size(), 1), dtype(type) {
      for (size_t i = shape.size(); i-- > 1;) {
        strides[i - 1] = strides[i] * shape[i];
      }
    }
    Shape shape;
    Strides strides;
    Dtype dtype;
    Flags flags;
  };
  std::shared_ptr<Is> is_;
};

inline std::string type_to_name(const Dtype& t) {
  return plain_name(t);
}
inline std::string type_to_name(const array& a) {
  return plain_name(a.dtype());
}

// ---- primitives --------------------------------------------------------------------------------------------

class Primitive {
 public:
  Stream& stream() {
    return stream_;
  }
  const char* name() const {
    return "stand_in";
  }

 private:
  Stream stream_;
};

// Was a string before it was an enumeration: it is both.
class QuantizationMode {
 public:
  enum Value { Affine, Mxfp4, Mxfp8, Nvfp4 };
  QuantizationMode(Value value = Affine) : value_(value) {}
  operator Value() const {
    return value_;
  }
  operator std::string() const {
    const char* names[] = {"affine", "mxfp4", "mxfp8", "nvfp4"};
    return names[value_];
  }

 private:
  Value value_;
};
inline bool operator==(const QuantizationMode& mode, const char* name) {
  return static_cast<std::string>(mode) == name;
}
inline bool operator!=(const QuantizationMode& mode, const char* name) {
  return !(mode == name);
}
inline std::string operator+(const QuantizationMode& mode, const std::string& rest) {
  return static_cast<std::string>(mode) + rest;
}
inline std::string quantization_mode_to_string(QuantizationMode mode) {
  return mode;
}

// All that the op's parameters were ever called.
class Quantized : public Primitive {
 public:
  int groups_ = 64, width_ = 4; // in the first two weeks
  int group_size_ = 64, bits_ = 4;
  bool transpose_ = true;
  QuantizationMode mode_;
};

class QuantizedMatmul : public Quantized {
 public:
  void eval_gpu(const std::vector<array>& inputs, array& out);
};

#define STAND_IN_OP(NAME)                                            \
  class NAME : public Quantized {                                    \
   public:                                                           \
    void eval_gpu(const std::vector<array>& inputs, array& out);     \
    void eval_gpu(const std::vector<array>&, std::vector<array>&);   \
    bool left_sorted_ = false, right_sorted_ = false, dequantize_ = false, to_fp8_ = false; \
  };
STAND_IN_OP(GatherQMM)
STAND_IN_OP(BlockSparseQMM)
STAND_IN_OP(QQMatmul)
STAND_IN_OP(GatherQQMM)
namespace fast {
STAND_IN_OP(AffineQuantize)
STAND_IN_OP(Quantize)
STAND_IN_OP(ConvertFP8)
} // namespace fast
#undef STAND_IN_OP

// ---- the device and its encoder ----------------------------------------------------------------------------

namespace metal {

using MTLFCList = std::vector<std::tuple<const void*, MTL::DataType, NS::UInteger>>;

// Copies of it write to the one log, and it is its own pointee: it was held in three ways.
class CommandEncoder {
 public:
  CommandEncoder* operator->() {
    return this;
  }
  void set_compute_pipeline_state(const MTL::ComputePipelineState* kernel) {
    kernel_ = kernel;
  }
  void setComputePipelineState(const MTL::ComputePipelineState* kernel) {
    kernel_ = kernel;
  }
  template <typename... Args>
  void set_input_array(const array&, const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_output_array(const array&, const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_bytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void setBytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_vector_bytes(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_buffer(const Args&...) {
    ++buffers_;
  }
  template <typename... Args>
  void set_threadgroup_memory_length(const Args&...) {}
  template <typename... Args>
  void register_output_array(const Args&...) {}
  template <typename... Args>
  void add_temporary(const Args&...) {}
  template <typename... Args>
  void add_temporaries(const Args&...) {}
  template <typename... Args>
  void barrier(const Args&...) {}

  void dispatch_threadgroups(MTL::Size grid, MTL::Size group) {
    if (kernel_ == nullptr) {
      throw std::runtime_error("a launch without a kernel");
    }
    stand_in::log.launches.push_back(
        {kernel_->name, kernel_->function, {grid.width, grid.height, grid.depth},
         {group.width, group.height, group.depth}, buffers_, 1, false});
    buffers_ = 0;
  }
  void dispatch_threads(MTL::Size grid, MTL::Size group) {
    auto groups = [](size_t n, size_t by) { return (n + std::max<size_t>(by, 1) - 1) / std::max<size_t>(by, 1); };
    dispatch_threadgroups(
        MTL::Size(groups(grid.width, group.width), groups(grid.height, group.height),
                  groups(grid.depth, group.depth)),
        group);
  }
  void dispatchThreadgroups(MTL::Size grid, MTL::Size group) {
    dispatch_threadgroups(grid, group);
  }
  void dispatchThreads(MTL::Size grid, MTL::Size group) {
    dispatch_threads(grid, group);
  }

 private:
  const MTL::ComputePipelineState* kernel_ = nullptr;
  int buffers_ = 0;
};

class Device {
 public:
  CommandEncoder& get_command_encoder(int = 0) {
    return encoder_;
  }
  MTL::CommandBuffer* get_command_buffer(int = 0) {
    return &buffer_;
  }
  const std::string& get_architecture() const {
    return stand_in::arch;
  }
  int get_architecture_gen() const {
    const auto& name = stand_in::arch;
    return name.size() < 3 ? 0 : 10 * (name[name.size() - 3] - '0') + (name[name.size() - 2] - '0');
  }
  template <typename... Args>
  MTL::ComputePipelineState* get_kernel(const std::string& name, const Args&...) {
    return kernel(name, "");
  }
  template <typename... Args>
  void add_temporary(const Args&...) {}
  template <typename... Args>
  void add_temporaries(const Args&...) {}

  MTL::ComputePipelineState* kernel(const std::string& name, const std::string& function) {
    auto& known = kernels_[name];
    if (!known) {
      known = std::make_unique<MTL::ComputePipelineState>(MTL::ComputePipelineState{name, function});
    }
    return known.get();
  }

 private:
  CommandEncoder encoder_;
  MTL::CommandBuffer buffer_;
  std::map<std::string, std::unique_ptr<MTL::ComputePipelineState>> kernels_;
};

inline Device& device(const mlx::core::Device& = {}) {
  static Device only;
  return only;
}
inline CommandEncoder& get_command_encoder(const Stream&) {
  return device().get_command_encoder();
}
inline bool is_nax_available() {
  return stand_in::nax;
}

} // namespace metal

using metal::CommandEncoder;

inline void set_array_buffer(CommandEncoder& encoder, const array& a, int index) {
  encoder.set_input_array(a, index);
}
template <typename... Args>
void set_vector_bytes(CommandEncoder& encoder, const Args&...) {
  encoder.set_vector_bytes(0);
}

// ---- kernels -----------------------------------------------------------------------------------------------

// The definition that would be compiled is the name of the function that it makes a kernel of.
template <typename... Args>
std::string get_template_definition(const std::string&, const std::string& function, const Args&...) {
  return function;
}
template <typename... Args>
MTL::ComputePipelineState* get_quantized_kernel(
    metal::Device& d, const std::string& name, const std::string& definition, const Args&...) {
  return d.kernel(name, definition);
}
template <typename... Args>
MTL::ComputePipelineState* get_qmm_nax_kernel(
    metal::Device& d, const std::string& name, const std::string& definition, const Args&...) {
  return d.kernel(name, definition);
}
template <typename... Args>
MTL::ComputePipelineState* get_gather_qmm_kernel(metal::Device& d, const std::string& name, const Args&...) {
  return d.kernel(name, "");
}
template <typename... Args>
MTL::ComputePipelineState* get_gather_qmm_nax_kernel(metal::Device& d, const std::string& name, const Args&...) {
  return d.kernel(name, "");
}

// A part of a text. One function joins them: a template of streams would take the compiler longest of all.
struct Part {
  Part(const std::string& s) : text(s) {}
  Part(const char* s) : text(s) {}
  Part(char c) : text(1, c) {}
  Part(bool b) : text(b ? "1" : "0") {}
  template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>>
  Part(T number) : text(std::to_string(number)) {}
  std::string text;
};
inline void join(std::string& text, std::initializer_list<Part> parts) {
  for (const auto& part : parts) {
    text += part.text;
  }
}
template <typename... Args>
void concatenate(std::string& text, const Args&... parts) {
  join(text, {Part(parts)...});
}

// ---- other ops that it calls -------------------------------------------------------------------------------

enum class CopyType { Scalar, Vector, General, GeneralGeneral };
enum class CompilationMode { Default };

template <typename... Args>
void copy_gpu(const array&, array&, const Args&...) {
  ++stand_in::log.copies;
}
inline array contiguous_copy_gpu(const array& a, const Stream&) {
  ++stand_in::log.copies;
  return array(a.shape(), a.dtype());
}
inline void unary_op_gpu(const std::vector<array>&, const array&, const std::string&, const Stream&) {}
inline void unary_op_gpu(const std::vector<array>&, const std::vector<array>&, const std::string&, const Stream&) {}
inline void broadcast(const array&, array&) {}
inline bool is_power_of_2(int n) {
  return n > 0 && (n & (n - 1)) == 0;
}
inline bool is_power_of_two(int n) {
  return is_power_of_2(n);
}

template <typename... Args>
std::tuple<Shape, std::vector<Strides>> collapse_contiguous_dims(
    const Shape& shape, const std::vector<Strides>& strides, const Args&...) {
  return {shape, strides};
}
template <typename... Args>
MTL::Size get_2d_grid_dims(const Shape& shape, const Args&...) {
  size_t n = std::accumulate(shape.begin(), shape.end(), size_t(1), std::multiplies<size_t>());
  return MTL::Size(n, 1, 1);
}

enum ReductionOpType {
  ContiguousAllReduce,
  ContiguousReduce,
  ContiguousStridedReduce,
  GeneralContiguousReduce,
  GeneralStridedReduce,
  GeneralReduce
};
struct ReductionPlan {
  ReductionPlan(ReductionOpType kind, Shape sizes = {}, Strides steps = {})
      : type(kind), shape(std::move(sizes)), strides(std::move(steps)) {}
  ReductionOpType type;
  Shape shape;
  Strides strides;
};
inline void strided_reduce_general_dispatch(
    const array&,
    array&,
    const std::string& op,
    const ReductionPlan& plan,
    const std::vector<int>& /* axes */,
    CommandEncoder&,
    metal::Device&,
    const Stream&) {
  int parts = std::accumulate(plan.shape.begin(), plan.shape.end(), 1, std::multiplies<int>());
  auto& launches = stand_in::log.launches;
  if (!launches.empty()) {
    launches.back().split = parts;
  }
  launches.push_back({"reduce_" + op, "", {0, 0, 0}, {0, 0, 0}, 0, parts, true});
}

// ---- settings ----------------------------------------------------------------------------------------------

namespace env {
#ifndef STAND_IN_OWN_GET_VAR
inline int get_var(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : otherwise;
}
inline std::string get_var(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}
#endif
#ifndef STAND_IN_ENV
inline bool enable_tf32() {
  return get_var("MLX_ENABLE_TF32", 1);
}
inline std::string metal_gpu_arch() {
  return stand_in::arch;
}
#endif
} // namespace env

} // namespace mlx::core

#ifdef STAND_IN_ENV
#include STAND_IN_ENV
#endif
