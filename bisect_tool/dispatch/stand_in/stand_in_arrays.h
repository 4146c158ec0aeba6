// Dtypes, streams and arrays: shapes, strides and flags, no data. Our own.
#pragma once

#include "stand_in_log.h"

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

} // namespace mlx::core
