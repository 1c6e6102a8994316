"""The command line. Nothing in the library imports it; a module imports only modules below it in this list.

main                        runs one command, and prints any error
parser                      the arguments
demo, evaluate, info        the subcommands, each imported when it runs
pair                        two files that belong together: axes, blocks, labels
diagnosis, measures, plots  what may be the matter with them; what is measured of them; how that is drawn
formats                     files that are read, mapped
terminal, files             what a terminal shows; files that are written whole or not at all
"""
