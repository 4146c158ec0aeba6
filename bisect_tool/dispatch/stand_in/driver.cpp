// Asks a commit's QuantizedMatmul::eval_gpu what it would launch. Our own.
//
// A line of standard input is a query, its words apart by blanks:
//   architecture nax K N M bits group-size mode dtype transpose
// A line of standard output answers it, in JSON: {"launches": [...], "copies": n} or {"exception": "..."}.
// Queries of one architecture that follow each other share a process, so that what the code keeps in a static
// variable is of that architecture, and a query that ends the process loses only its own answer.
#include "stand_in.h"

#include STAND_IN_SOURCE

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>

namespace {

using namespace mlx::core;

struct Query {
  std::string arch, mode, dtype;
  int nax, K, N, M, bits, group_size, transpose;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c < 0x20 || c > 0x7e) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

Dtype dtype_of(const std::string& name) {
  return name == "float32" ? float32 : name == "bfloat16" ? bfloat16 : float16;
}

QuantizationMode::Value mode_of(const std::string& name) {
  return name == "mxfp4"   ? QuantizationMode::Mxfp4
      : name == "mxfp8" ? QuantizationMode::Mxfp8
      : name == "nvfp4" ? QuantizationMode::Nvfp4
                        : QuantizationMode::Affine;
}

// The inputs as the op passes them: x of M rows, w packed in words of 32 bits, scales and, affine, biases.
std::string answer(const Query& q) {
  stand_in::arch = q.arch;
  stand_in::nax = q.nax != 0;
  stand_in::log = {};
  auto dtype = dtype_of(q.dtype);
  auto mode = mode_of(q.mode);
  bool affine = mode == QuantizationMode::Affine;
  auto packed = [&](int n) { return static_cast<int>(static_cast<int64_t>(n) * q.bits / 32); };
  int rows = q.transpose ? q.N : q.K, columns = q.transpose ? q.K : q.N;
  array x({q.M, q.K}, dtype, nullptr);
  array w({rows, packed(columns)}, uint32, nullptr);
  array scales({rows, columns / q.group_size}, affine ? dtype : uint8, nullptr);
  array biases({rows, columns / q.group_size}, dtype, nullptr);
#ifdef STAND_IN_WEIGHT_VIEW
  // Before the op had the argument it was given the transpose as a view.
  w = w.view({packed(columns), rows}, {1, static_cast<StrideElem>(packed(columns))});
#endif
  array out({q.M, q.N}, dtype, nullptr);
  std::vector<array> inputs{x, w, scales};
  if (affine) {
    inputs.push_back(biases);
  }
  QuantizedMatmul op;
  op.groups_ = op.group_size_ = q.group_size;
  op.width_ = op.bits_ = q.bits;
  op.transpose_ = q.transpose != 0;
  op.mode_ = mode;
  try {
    op.eval_gpu(inputs, out);
  } catch (const std::exception& problem) {
    return "{\"exception\": " + quoted(problem.what()) + "}";
  }
  std::ostringstream text;
  text << "{\"launches\": [";
  const char* comma = "";
  for (const auto& each : stand_in::log.launches) {
    text << comma << "{\"kernel\": " << quoted(each.kernel) << ", \"function\": " << quoted(each.function)
         << ", \"grid\": [" << each.grid[0] << ", " << each.grid[1] << ", " << each.grid[2]
         << "], \"group\": [" << each.group[0] << ", " << each.group[1] << ", " << each.group[2]
         << "], \"buffers\": " << each.buffers << ", \"split\": " << each.split
         << ", \"reduction\": " << (each.reduction ? "true" : "false") << "}";
    comma = ", ";
  }
  text << "], \"copies\": " << stand_in::log.copies << "}";
  return text.str();
}

bool write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    auto n = ::write(fd, text.data() + at, text.size() - at);
    if (n <= 0) {
      return false;
    }
    at += static_cast<size_t>(n);
  }
  return true;
}

// Answers in a process of its own; says how many answers came, and how it ended.
size_t answer_apart(const std::vector<Query>& queries, size_t first, size_t last, int& status) {
  int ends[2];
  if (::pipe(ends) != 0) {
    std::exit(3);
  }
  std::fflush(stdout);
  pid_t child = ::fork();
  if (child < 0) {
    std::exit(3);
  }
  if (child == 0) {
    ::close(ends[0]);
    for (size_t i = first; i < last; ++i) {
      if (!write_all(ends[1], answer(queries[i]) + "\n")) {
        break;
      }
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said;
  char chunk[1 << 16];
  for (ssize_t n; (n = ::read(ends[0], chunk, sizeof chunk)) > 0;) {
    said.append(chunk, static_cast<size_t>(n));
  }
  ::close(ends[0]);
  ::waitpid(child, &status, 0);
  said.resize(said.rfind('\n') == std::string::npos ? 0 : said.rfind('\n') + 1);
  std::fwrite(said.data(), 1, said.size(), stdout);
  return static_cast<size_t>(std::count(said.begin(), said.end(), '\n'));
}

} // namespace

int main() {
  std::vector<Query> queries;
  Query q;
  char arch[64], mode[16], dtype[16];
  while (std::scanf("%63s %d %d %d %d %d %d %15s %15s %d", arch, &q.nax, &q.K, &q.N, &q.M, &q.bits,
                    &q.group_size, mode, dtype, &q.transpose) == 10) {
    q.arch = arch;
    q.mode = mode;
    q.dtype = dtype;
    queries.push_back(q);
  }
  for (size_t first = 0; first < queries.size();) {
    size_t last = first + 1;
    while (last < queries.size() && queries[last].arch == queries[first].arch &&
           queries[last].nax == queries[first].nax) {
      ++last;
    }
    while (first < last) {
      int status = 0;
      first += answer_apart(queries, first, last, status);
      if (first < last) {
        int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        std::string how = number == SIGFPE ? "a division by zero"
            : number == SIGSEGV            ? "a bad address"
            : number == SIGABRT            ? "an abort"
                                           : "signal " + std::to_string(number);
        std::string said = "{\"exception\": " + quoted("the host code ended the process: " + how) + "}\n";
        std::fwrite(said.data(), 1, said.size(), stdout);
        ++first;
      }
    }
  }
  return 0;
}
