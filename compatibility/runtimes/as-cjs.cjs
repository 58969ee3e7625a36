const process = require('node:process')
const fieldstream = require('fieldstream')
const { anthropic } = require('fieldstream/anthropic')

import('./scenario.mjs')
  .then(({ report }) => report({ fieldstream, createProvider: anthropic, serverURL: process.env['SERVER_URL'] }))
  .then(console.log)
