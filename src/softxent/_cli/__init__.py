"""The command line. Nothing in the library imports it; each module knows only those below it.

main        runs one command, and tells whatever goes wrong
parser      the arguments
demo, evaluate, info    the subcommands, each imported when it runs
terminal, files         what they share: what a terminal shows, and files that appear whole or not at all
"""
