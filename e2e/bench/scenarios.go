package main

// scenarios in the order in which they run and stand in the file.
var scenarios = []scenario{
	duplicate,
	newEvents,
	importFile,
	history,
	live,
	liveSlowDisk,
	liveDurable,
	many,
	sinkFar,
	sinkBehind,
	knownIDs,
	growSources,
	growSinks,
}
