"""The CMake files of ours that a build reads. Pure: text in, text out.

CMake is told the options by an initial cache, and asks for each FetchContent source through a dependency
provider (CMake 3.24 and newer), which gives it a folder under ``builds/sources`` or says what is missing:
https://cmake.org/cmake/help/latest/command/cmake_language.html#dependency-providers
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

WANTS = "bisect_tool wants: "
USES = "bisect_tool uses: "
LANGUAGES = ("C", "CXX", "CUDA", "OBJC", "OBJCXX")

PROVIDER = """\
# Written by bisect_tool. FetchContent asks here for every source before it would download it.
include("${CMAKE_CURRENT_LIST_DIR}/sources.cmake")
# What the commit before was given is in the cache of a kept tree, and would be taken without asking.
get_cmake_property(_bt_cached CACHE_VARIABLES)
foreach(_bt_entry IN LISTS _bt_cached)
  if(_bt_entry MATCHES "^FETCHCONTENT_SOURCE_DIR_")
    unset(${_bt_entry} CACHE)
  endif()
endforeach()
set(_bt_words GIT_SHALLOW GIT_PROGRESS GIT_CONFIG GIT_SUBMODULES GIT_SUBMODULES_RECURSE GIT_REMOTE_NAME
  SOURCE_DIR BINARY_DIR SOURCE_SUBDIR SUBBUILD_DIR DOWNLOAD_DIR DOWNLOAD_NAME DOWNLOAD_NO_PROGRESS
  DOWNLOAD_EXTRACT_TIMESTAMP TLS_VERIFY UPDATE_COMMAND CONFIGURE_COMMAND BUILD_COMMAND INSTALL_COMMAND
  TEST_COMMAND EXCLUDE_FROM_ALL SYSTEM OVERRIDE_FIND_PACKAGE FIND_PACKAGE_ARGS
  EXTERNALPROJECT_INTERNAL_ARGUMENT_SEPARATOR)
macro(bisect_tool_provide _bt_method _bt_name)
  cmake_parse_arguments(_BT "" "URL;URL_HASH;URL_MD5;GIT_REPOSITORY;GIT_TAG" "PATCH_COMMAND;${_bt_words}"
    ${ARGN})
  set(_bt_asked "${_bt_name}\\t${_BT_URL}\\t${_BT_URL_HASH}\\t${_BT_GIT_REPOSITORY}\\t${_BT_GIT_TAG}")
  string(SHA256 _bt_key "${_bt_asked}")
  if(NOT DEFINED BISECT_TOOL_SOURCE_${_bt_key})
    message(NOTICE "@WANTS@${_bt_asked}")
    message(FATAL_ERROR "the source ${_bt_name} is not there yet")
  endif()
  message(NOTICE "@USES@${_bt_asked}")
  set(_bt_folder "${BISECT_TOOL_SOURCE_${_bt_key}}")
  # A given source folder would skip it; the copy is named for what the patch may be.
  if(NOT "${_BT_PATCH_COMMAND}" STREQUAL "")
    string(SHA256 _bt_patched "${_bt_asked}|${_BT_PATCH_COMMAND}|${BISECT_TOOL_PATCHES}")
    set(_bt_copy "${CMAKE_BINARY_DIR}/patched/${_bt_patched}")
    if(NOT EXISTS "${_bt_copy}")
      file(COPY "${_bt_folder}/" DESTINATION "${_bt_copy}")
      set(_bt_patch "")
      foreach(_bt_word IN LISTS _BT_PATCH_COMMAND)
        if(_bt_word STREQUAL "COMMAND")
          set(_bt_word "&&")
        elseif(NOT _bt_word MATCHES "^(&&|[|][|]?|>>?|<)$")
          string(REPLACE "<SOURCE_DIR>" "${_bt_copy}" _bt_word "${_bt_word}")
          string(REPLACE "'" "'\\\\''" _bt_word "${_bt_word}")
          set(_bt_word "'${_bt_word}'")
        endif()
        string(APPEND _bt_patch " ${_bt_word}")
      endforeach()
      execute_process(COMMAND sh -c "${_bt_patch}" WORKING_DIRECTORY "${_bt_copy}" COMMAND_ERROR_IS_FATAL ANY)
    endif()
    set(_bt_folder "${_bt_copy}")
  endif()
  string(TOUPPER "${_bt_name}" _bt_upper)
  set(FETCHCONTENT_SOURCE_DIR_${_bt_upper} "${_bt_folder}" CACHE PATH "" FORCE)
endmacro()
cmake_language(SET_DEPENDENCY_PROVIDER bisect_tool_provide
  SUPPORTED_METHODS FETCHCONTENT_MAKEAVAILABLE_SERIAL)
""".replace("@WANTS@", WANTS).replace("@USES@", USES)  # fmt: skip


def initial_cache(
    options: Mapping[str, str],
    *,
    flags: str,
    launcher: Sequence[str],
    python: Path,
    provider: Path,
    apple: bool,
    before: str = "",
    extra: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The file for ``cmake -C``. ``flags``: for the compiler, all languages. ``launcher``: put before it.
    ``extra``: flags in front of those, by language.

    ``python`` is the build environment's. Values of ``options`` win over everything set here. ``before``: the
    file of the build before in the same folder, whose cache keeps what this one does not set anew.
    """
    origin = "@loader_path" if apple else "$ORIGIN"
    entries = {
        "Python_EXECUTABLE": str(python),
        "CMAKE_MAKE_PROGRAM": str(python.parent / "ninja"),
        "CMAKE_PROJECT_TOP_LEVEL_INCLUDES": str(provider),
        "FETCHCONTENT_FULLY_DISCONNECTED": "ON",
        # What is packed must load the libraries packed beside it, never those of the build folder.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": f"{origin}/lib",
        **{
            f"CMAKE_{language}_FLAGS_PLAIN": " ".join((*(extra or {}).get(language, ()), flags))
            for language in LANGUAGES
        },
        **{f"CMAKE_{language}_COMPILER_LAUNCHER": ";".join(launcher) for language in LANGUAGES},
        **options,
    }
    lines = [f'set({name} [==[{value}]==] CACHE STRING "" FORCE)' for name, value in sorted(entries.items())]
    set_before = re.findall(r"^set\((\w+) ", before, re.MULTILINE)
    gone = [f"unset({name} CACHE)" for name in sorted({*set_before} - entries.keys())]
    return "# Written by bisect_tool.\n" + "\n".join([*gone, *lines]) + "\n"


def sources(known: Mapping[str, Path], patches: str) -> str:
    """The list that the provider reads: what was asked for (``asked`` of a ``WANTS`` line) and where it is.

    ``patches`` stands for all that a PATCH_COMMAND of the commit could read.
    """
    lines = [f"set(BISECT_TOOL_PATCHES [==[{patches}]==])"]
    for asked, folder in sorted(known.items()):
        key = hashlib.sha256(asked.encode()).hexdigest()
        lines.append(f"set(BISECT_TOOL_SOURCE_{key} [==[{folder}]==])")
    return "# Written by bisect_tool.\n" + "\n".join(lines) + "\n"


def asked_for(log: str, what: str) -> list[str]:
    """What the provider said it wants or uses, each once: name, URL, its hash, repository, tag, by tabs."""
    return list(dict.fromkeys(re.findall(rf"^{re.escape(what)}([^\n]*)$", log, re.MULTILINE)))


def extra_config(build: Path) -> str:
    """For ``DIST_EXTRA_CONFIG``: setuptools works in ``build``, and packs without compressing, which takes as
    long as a cached build."""
    return f"[build]\nbuild_base={build}\n\n[bdist_wheel]\ncompression=stored\n"


__all__ = ["PROVIDER", "USES", "WANTS", "asked_for", "extra_config", "initial_cache", "sources"]
